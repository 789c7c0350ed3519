"""What an LDAP entry says: one form for each name, who is out, and what is no person at all."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.directory.ldap.entries import DEFAULTS, Group, Person, Reads, Server, canonical, group, person
from doorward.directory.ldap.wire import Entry

GUID = UUID("6b5f2c10-0000-4000-8000-00000000abcd")


def reads(server: Server, **more: object) -> Reads:
    return Reads(server=server, base="dc=x", **{**DEFAULTS[server], **more})


AD, OPENLDAP = reads(Server.AD), reads(Server.OPENLDAP)


def ad(**attributes: str) -> Entry:
    said = {"sAMAccountName": "dana", "userAccountControl": "512", "accountExpires": "0", **attributes}
    values = {name.lower(): (value.encode(),) for name, value in said.items() if value}
    return Entry("CN=Dana,DC=x", {**values, "objectguid": (GUID.bytes_le,)})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CN=Dana , OU=People,DC=x", "cn=dana,ou=people,dc=X"),
        (r"cn=Doe\, Jane,dc=x", r"CN=doe\2c jane,DC=x"),
        (r"cn=\4a\6fe,dc=x", "cn=joe,dc=x"),
        (r"cn=J\C3\BCrgen,dc=x", "cn=jürgen,dc=x"),
        ("cn=a+uid=b,dc=x", "uid=B + cn=A,dc=x"),
        ("cn=two  spaces,dc=x", "cn=two spaces,dc=x"),
    ],
)
def test_every_spelling_of_a_name_is_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"cn=a\,dc=x", "cn=a,dc=x"),
        (r"cn=a\,ou=b,dc=x", "cn=a,ou=b,dc=x"),
        (r"cn=a\+uid=b,dc=x", "cn=a+uid=b,dc=x"),
        ("cn=a%2cou=b,dc=x", r"cn=a\,ou=b,dc=x"),
        ("cn=a,dc=x", "uid=a,dc=x"),
    ],
)
def test_two_names_never_become_one(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(st.text(max_size=60))
def test_no_name_breaks_it(text: str) -> None:
    assert isinstance(canonical(text), str)


class TestActiveDirectory:
    def test_a_person_is_found_by_her_guid(self) -> None:
        found = person(ad(mail="d@x", department="risk"), AD)
        assert isinstance(found, Person)
        assert (found.id, found.name) == (str(GUID), "dana")
        assert found.attrs == {"active": True, "email": "d@x", "department": "risk"}

    @pytest.mark.parametrize("control", ["514", "66050", "", "x", "-2147483646"])
    def test_disabled_or_unknown_is_out(self, control: str) -> None:
        found = person(ad(userAccountControl=control), AD)
        assert isinstance(found, Person)
        assert found.attrs["active"] is False

    @pytest.mark.parametrize("ticks", ["0", "9223372036854775807", "", "9" * 30, "never"])
    def test_what_never_ends_has_no_end(self, ticks: str) -> None:
        found = person(ad(accountExpires=ticks), AD)
        assert isinstance(found, Person)
        assert found.expires is None

    def test_an_end_is_a_time(self) -> None:
        found = person(ad(accountExpires="133801632000000000"), AD)
        assert isinstance(found, Person)
        assert found.expires == datetime(2025, 1, 1, tzinfo=UTC)

    def test_the_subject_is_the_configured_attribute(self) -> None:
        for attribute, expected in (("objectGUID", str(GUID)), ("userPrincipalName", "dana@x"), ("", "")):
            found = person(ad(userPrincipalName="dana@x"), reads(Server.AD, subject=attribute))
            assert isinstance(found, Person)
            assert found.subject == expected


class TestOthers:
    def test_an_entry_without_id_or_name_is_told(self) -> None:
        assert "no `entryUUID`" in str(person(Entry("uid=a,dc=x", {"uid": (b"a",)}), OPENLDAP))
        assert "no `uid`" in str(person(Entry("cn=a,dc=x", {"entryuuid": (b"1",)}), OPENLDAP))

    def test_text_that_is_none_is_left_out(self) -> None:
        entry = Entry(
            "uid=a,dc=x", {"entryuuid": (b"1",), "uid": (b"a",), "mail": (b"\xff\xfe",), "ou": (b"a\nb",)}
        )
        found = person(entry, OPENLDAP)
        assert isinstance(found, Person)
        assert found.attrs == {"active": True}

    def test_configured_values_put_somebody_out(self) -> None:
        own = reads(Server.OPENLDAP, inactive_attribute="employeeStatus", inactive_values=("left",))
        entry = Entry("uid=a,dc=x", {"entryuuid": (b"1",), "uid": (b"a",), "employeestatus": (b"LEFT",)})
        found = person(entry, own)
        assert isinstance(found, Person)
        assert found.attrs["active"] is False

    def test_members_are_names_or_user_names(self) -> None:
        entry = Entry(
            "cn=g,dc=x",
            {"entryuuid": (b"2",), "cn": (b"g",), "member": (b"UID=A,DC=x",), "memberuid": (b"Bob",)},
        )
        found = group(entry, OPENLDAP)
        assert isinstance(found, Group)
        assert found.members == ("bob", "uid=a,dc=x")

    def test_only_what_is_needed_is_asked_for(self) -> None:
        for asked in (AD.user_attributes, OPENLDAP.user_attributes):
            assert not {"userpassword", "unicodepwd", "*", "+"} & {name.lower() for name in asked}
