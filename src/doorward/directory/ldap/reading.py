"""Find out what changed in a directory: everything at first, then what is newer, and who is still there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace
from sansldap import FilterAnd, FilterGreaterOrEqual, FilterOr, LDAPFilter

from doorward.core.errors import UnavailableError
from doorward.directory.ldap import entries
from doorward.directory.ldap.entries import Group, Person, Reads, Server
from doorward.directory.ldap.wire import Connection, Endpoint, Entry

if TYPE_CHECKING:
    from doorward.core.clock import Clock

# A look at who is there takes at most this share of the time: a big directory is not kept busy.
_SHARE: Final = 10
# Servers that write side by side may make an older change known a little later.
_OVERLAP: Final = timedelta(seconds=30)
_RANGE: Final = re.compile(r"^(?P<name>[a-z]+);range=(?P<from>\d+)-(?P<to>\d+|\*)$")
_CSN_TIME: Final = re.compile(r"\d{14}")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read: all of it (`whole`) or what changed. `present` are all ids there are, None: not looked.

    `left_out` says in words which entries could not be used.
    """

    whole: bool
    people: tuple[Person, ...] = ()
    groups: tuple[Group, ...] = ()
    present: frozenset[str] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def objects(self) -> list[Person | Group]:
        """Return people and groups together."""
        return [*self.people, *self.groups]


class Mark(msgspec.Struct, frozen=True):
    """Where a server's changes stand: `origin` is whose count it is."""

    origin: str
    value: str


class Reader:
    """Follow one directory; keeps its connection and where it left off. Not thread-safe."""

    def __init__(self, endpoint: Endpoint, reads: Reads, clock: Clock) -> None:
        """Connect only when first asked."""
        self._endpoint, self._reads, self._clock = endpoint, reads, clock
        self._connection: Connection | None = None
        self._mark: Mark | None = None
        self._names: dict[str, str] = {}
        self._owed = False
        self._not_before = 0.0

    def poll(self) -> Reading | None:
        """Return what changed since the last call, None for nothing; raise UnavailableError.

        After an error the next call reads everything again.
        """
        try:
            return self._poll()
        except UnavailableError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up, and begin anew with everything."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._mark = None

    def again(self) -> None:
        """Read everything at the next call."""
        self._mark = None

    # Inside

    def _poll(self) -> Reading | None:
        connection = self._connected()
        before, now = self._mark, self._stand(connection)
        if before is None or _went_back(before, now, self._reads):
            return self._whole(connection, now)
        changed = now != before or not now.value
        if not changed and not (self._owed and self._may_look()):
            return None
        read = self._newer(connection, before) if changed else Reading(whole=False)
        if self._renamed(read):
            # What groups say of somebody is under the old name: only reading them again tells.
            return self._whole(connection, now)
        self._owed = self._owed or changed
        if self._owed and self._may_look():
            read = replace(read, present=self._present(connection))
        self._mark = now
        self._remember(read)
        return read

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self._endpoint)
        return self._connection

    def _stand(self, connection: Connection) -> Mark:
        """Return how far the server's changes go: one small question."""
        if self._reads.server is Server.AD:
            root = connection.read("", ("dsServiceName", "highestCommittedUSN"))
            if root is None:
                raise UnavailableError("the directory shows no root entry")
            return Mark(root.text("dsServiceName"), root.text("highestCommittedUSN"))
        stand = connection.read(self._suffix(connection), ("contextCSN",))
        return Mark("", " ".join(sorted(stand.texts("contextCSN"))) if stand is not None else "")

    def _suffix(self, connection: Connection) -> str:
        root = connection.read("", ("namingContexts",))
        base = entries.canonical(self._reads.base)
        contexts = root.texts("namingContexts") if root is not None else ()
        above = [c for c in contexts if c and f",{base}".endswith(f",{entries.canonical(c)}")]
        return max(above, key=len, default=self._reads.base)

    def _whole(self, connection: Connection, now: Mark) -> Reading:
        started = self._clock.monotonic()
        read = self._read(connection, self._reads.users, self._reads.all_groups, whole=True)
        ids = frozenset(one.id for one in read.objects)
        self._looked(started)
        self._names = {}
        self._mark, self._owed = now, False
        self._remember(read)
        return replace(read, present=ids)

    def _newer(self, connection: Connection, since: Mark) -> Reading:
        newer = FilterGreaterOrEqual(self._reads.changed, self._threshold(since).encode())
        return self._read(
            connection,
            FilterAnd([newer, self._reads.users]),
            FilterAnd([newer, self._reads.all_groups]),
            whole=False,
        )

    def _threshold(self, since: Mark) -> str:
        if self._reads.server is Server.AD:
            return since.value
        times = _CSN_TIME.findall(since.value)
        if not times:
            moment = self._clock.now() - _OVERLAP * 10
        else:
            moment = datetime.strptime(min(times), "%Y%m%d%H%M%S").replace(tzinfo=UTC) - _OVERLAP
        return f"{moment:%Y%m%d%H%M%S}.000000Z#000000#000#000000"

    def _read(self, connection: Connection, users: LDAPFilter, groups: LDAPFilter, *, whole: bool) -> Reading:
        reads = self._reads
        people = [
            entries.person(entry, reads)
            for entry in connection.search(reads.base, users, reads.user_attributes)
        ]
        listed = [
            entries.group(self._with_ranges(connection, entry), reads)
            for entry in connection.search(reads.base, groups, reads.group_attributes)
        ]
        return Reading(
            whole=whole,
            people=tuple(one for one in people if isinstance(one, Person)),
            groups=tuple(one for one in listed if isinstance(one, Group)),
            left_out=tuple(one for one in (*people, *listed) if isinstance(one, str)),
        )

    def _with_ranges(self, connection: Connection, entry: Entry) -> Entry:
        """Return a group with all its members where the server gives them in parts."""
        parts = [match for name in entry.attributes if (match := _RANGE.match(name))]
        if not parts:
            return entry
        attributes = dict(entry.attributes)
        for part in parts:
            attributes[part["name"]] = tuple(_all_parts(connection, entry, part))
        return Entry(entry.dn, attributes)

    def _present(self, connection: Connection) -> frozenset[str]:
        started = self._clock.monotonic()
        wanted = FilterOr([self._reads.users, self._reads.all_groups])
        found: Sequence[str] = [
            entries.identifier(entry, self._reads)
            for entry in connection.search(self._reads.base, wanted, (self._reads.id,))
        ]
        self._looked(started)
        self._owed = False
        return frozenset(found)

    def _looked(self, started: float) -> None:
        ended = self._clock.monotonic()
        self._not_before = ended + (ended - started) * _SHARE

    def _may_look(self) -> bool:
        return self._clock.monotonic() >= self._not_before

    def _renamed(self, read: Reading) -> bool:
        return any(self._names.get(one.id, one.dn) != one.dn for one in read.objects)

    def _remember(self, read: Reading) -> None:
        self._names |= {one.id: one.dn for one in read.objects}


def _went_back(before: Mark, now: Mark, reads: Reads) -> bool:
    """Return whether the server is another one, or was restored from a backup: its count means nothing."""
    if before.origin != now.origin:
        return True
    if reads.server is Server.AD:
        return not now.value.isdecimal() or int(now.value) < int(before.value)
    return bool(before.value) and now.value < before.value


def _all_parts(connection: Connection, entry: Entry, part: re.Match[str]) -> Iterator[bytes]:
    yield from entry.attributes[part.string]
    end = part["to"]
    while end != "*":
        start = int(end) + 1
        more = connection.read(entry.dn, (f"{part['name']};range={start}-*",))
        following = [m for name in (more.attributes if more is not None else ()) if (m := _RANGE.match(name))]
        if more is None or not following or int(following[0]["from"]) != start:
            raise UnavailableError(f"the members of `{entry.dn}` came in parts that do not fit together")
        yield from more.attributes[following[0].string]
        end = following[0]["to"]
