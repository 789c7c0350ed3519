"""What an entry says: a person or a group in the directory's words, whatever the server calls them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec
from sansldap import LDAPFilter

from doorward.core.model import Value
from doorward.directory.ldap.wire import Entry

_DISABLED: Final = 0x2  # ADS_UF_ACCOUNTDISABLE
_NEVER: Final = frozenset({0, 0x7FFFFFFFFFFFFFFF})
_WINDOWS_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)
_LONGEST: Final = 512
_LOCKED_FOR_GOOD: Final = "000001010000z"
_ESCAPED: Final = re.compile(r"\\([0-9a-fA-F]{2})|\\(.)")


class Server(Enum):
    """Name the kinds of server whose changes can be followed."""

    AD = "ad"
    OPENLDAP = "openldap"


class Reads(msgspec.Struct, frozen=True, kw_only=True):
    """Say where things stand in entries: filters, and the names of attributes."""

    server: Server
    base: str
    user_filter: str
    group_filter: str
    id: str
    name: str
    group_name: str
    member: tuple[str, ...]
    changed: str
    email: str = "mail"
    department: str = "department"
    employment: str = "employeeType"
    subject: str = ""
    inactive_attribute: str = ""
    inactive_values: tuple[str, ...] = ()

    @property
    def users(self) -> LDAPFilter:
        """Return the filter that finds people."""
        return LDAPFilter.from_string(self.user_filter)

    @property
    def all_groups(self) -> LDAPFilter:
        """Return the filter that finds groups."""
        return LDAPFilter.from_string(self.group_filter)

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """Return the attributes that are asked of a person, and no more."""
        asked = [self.id, self.name, self.changed, self.email, self.department, self.employment]
        asked += [self.subject, self.inactive_attribute]
        own = {
            Server.AD: ("userAccountControl", "accountExpires"),
            Server.OPENLDAP: ("pwdAccountLockedTime",),
        }
        return tuple(dict.fromkeys(name for name in (*asked, *own[self.server]) if name))

    @property
    def group_attributes(self) -> tuple[str, ...]:
        """Return the attributes that are asked of a group."""
        return (self.id, self.group_name, self.changed, *self.member)


DEFAULTS: Final[dict[Server, dict[str, Any]]] = {
    Server.AD: {
        "user_filter": "(&(objectClass=user)(!(objectClass=computer)))",
        "group_filter": "(objectClass=group)",
        "id": "objectGUID", "name": "sAMAccountName", "group_name": "cn", "member": ("member",),
        "changed": "uSNChanged",
    },
    Server.OPENLDAP: {
        "user_filter": "(objectClass=inetOrgPerson)",
        "group_filter": "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)"
        "(objectClass=posixGroup))",
        "id": "entryUUID", "name": "uid", "group_name": "cn",
        "member": ("member", "uniqueMember", "memberUid"), "changed": "entryCSN", "department": "ou",
    },
}  # fmt: skip


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """A person as an entry says; `expires` is when the account ends by itself."""

    id: str
    dn: str
    name: str
    subject: str
    attrs: dict[str, Value]
    expires: datetime | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A group as an entry says; `members` are names in canonical form, or user names (`memberUid`)."""

    id: str
    dn: str
    name: str
    members: tuple[str, ...]


def identifier(entry: Entry, reads: Reads) -> str:
    """Return an entry's own unique id, empty if it shows none."""
    values = entry.attributes.get(reads.id.lower(), ())
    if not values:
        return ""
    if reads.server is Server.AD:
        return str(UUID(bytes_le=values[0])) if len(values[0]) == len(UUID(int=0).bytes) else ""
    return entry.text(reads.id).lower()


def person(entry: Entry, reads: Reads) -> Person | str:
    """Return the person an entry describes, or why it describes none."""
    found, name = identifier(entry, reads), entry.text(reads.name)
    if not found or not name:
        return f"{entry.dn}: no `{reads.id if not found else reads.name}`"
    said = {
        "email": entry.text(reads.email),
        "department": entry.text(reads.department),
        "employment": entry.text(reads.employment).lower(),
    }
    attrs: dict[str, Value] = {
        key: text for key, text in said.items() if text and text.isprintable() and len(text) <= _LONGEST
    }
    return Person(
        id=found,
        dn=canonical(entry.dn),
        name=name,
        subject=_subject(entry, reads, found),
        attrs={"active": _active(entry, reads), **attrs},
        expires=_expires(entry),
    )


def group(entry: Entry, reads: Reads) -> Group | str:
    """Return the group an entry describes, or why it describes none."""
    found, name = identifier(entry, reads), entry.text(reads.group_name)
    if not found or not name:
        return f"{entry.dn}: no `{reads.id if not found else reads.group_name}`"
    members = {
        value.casefold() if attribute.lower() == "memberuid" else canonical(value)
        for attribute in reads.member
        for value in entry.texts(attribute)
    }
    return Group(id=found, dn=canonical(entry.dn), name=name, members=tuple(sorted(members)))


def canonical(dn: str) -> str:
    """Return one form for every spelling of a distinguished name (RFC 4514), without case."""
    return ",".join("+".join(sorted(map(_pair, _split(rdn, "+")))) for rdn in _split(dn, ",;"))


def _split(text: str, separators: str) -> list[str]:
    parts, current, escaped = [], "", False
    for character in text:
        if escaped or character not in separators:
            current += character
            escaped = not escaped and character == "\\"
        else:
            parts.append(current)
            current = ""
    return [*parts, current] if text else []


def _pair(text: str) -> str:
    kind, _, value = text.partition("=")
    raw = _ESCAPED.sub(lambda m: bytes.fromhex(m[1]).decode("latin-1") if m[1] else m[2], value.strip())
    # Pairs of hex digits are bytes of UTF-8, so what they spelt is put together again.
    with suppress(UnicodeError):
        raw = raw.encode("latin-1").decode("utf-8")
    plain = " ".join(raw.split()).casefold()
    # Written so that no value can look like another name's separators.
    return f"{kind.strip().lower()}={plain.replace('%', '%25').replace(',', '%2c').replace('+', '%2b')}"


def _subject(entry: Entry, reads: Reads, found: str) -> str:
    if not reads.subject:
        return ""
    return found if reads.subject.lower() == reads.id.lower() else entry.text(reads.subject)


def _active(entry: Entry, reads: Reads) -> bool:
    if reads.inactive_attribute:
        wanted = {value.casefold() for value in reads.inactive_values}
        if wanted & {text.casefold() for text in entry.texts(reads.inactive_attribute)}:
            return False
    if reads.server is Server.OPENLDAP:
        return entry.text("pwdAccountLockedTime").lower() != _LOCKED_FOR_GOOD
    control = entry.text("userAccountControl")
    # An account whose state is not shown is not one to let in.
    return control.lstrip("-").isdecimal() and not int(control) & _DISABLED


def _expires(entry: Entry) -> datetime | None:
    text = entry.text("accountExpires")
    ticks = int(text) if text.isdecimal() else 0
    if ticks in _NEVER:
        return None
    try:
        return _WINDOWS_EPOCH + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return None
