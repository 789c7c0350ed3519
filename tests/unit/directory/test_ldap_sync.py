"""From a reading to a plan: the brake, circles, what one source may not say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from doorward.core.clock import ManualClock
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.directory.administration import Directory
from doorward.directory.ldap.entries import Group, Person
from doorward.directory.ldap.reading import Reading
from doorward.directory.ldap.sync import Brake, Outcome, outcome_of
from doorward.directory.org import parse
from doorward.directory.rules import Rules
from doorward.store.opened import Store

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RULES = Rules(source="ldap:corp", roles={"scientists": ("data-scientist",)})
uid = EntityUid.of


class Corp:
    def __init__(self, tmp_path: Path) -> None:
        self.clock = ManualClock(NOW)
        store = Store.open("sqlite:///state.db", tmp_path)
        self.directory = Directory(store, self.clock, IdSource(self.clock))

    def read(
        self,
        *objects: Person | Group,
        whole: bool = True,
        off: bool = False,
        barred: frozenset[EntityUid] = frozenset(),
    ) -> Outcome:
        reading = Reading(
            whole=whole,
            people=tuple(one for one in objects if isinstance(one, Person)),
            groups=tuple(one for one in objects if isinstance(one, Group)),
            present=frozenset(one.id for one in objects) if whole else None,
        )
        outcome = outcome_of(
            reading, self.directory, RULES, Brake(0.1, off=off), self.clock.now(), barred=barred
        )
        self.directory.provision(outcome.plan, operator="ldap:corp")
        return outcome

    def active(self, *names: str) -> list[bool]:
        return [self.directory.snapshot.is_active(uid("User", name)) for name in names]

    def parents(self, name: str) -> set[EntityUid]:
        found = self.directory.entity(uid("User", name))
        return set() if found is None else set(found.parents)


@pytest.fixture
def corp(tmp_path: Path) -> Corp:
    return Corp(tmp_path)


def man(name: str, *, active: bool = True, expires: datetime | None = None, subject: str = "") -> Person:
    return Person(
        id=f"id-{name}",
        dn=f"uid={name},dc=x",
        name=name,
        subject=subject,
        attrs={"active": active},
        expires=expires,
    )


def crowd(count: int, *, active: bool = True) -> list[Person]:
    return [man(f"u{number}", active=active) for number in range(count)]


def club(name: str, *members: str) -> Group:
    return Group(id=f"id-{name}", dn=f"cn={name},dc=x", name=name, members=tuple(members))


def test_reading_the_same_again_changes_nothing(corp: Corp) -> None:
    everything = (*crowd(3), club("scientists", "uid=u0,dc=x", "cn=inner,dc=x"), club("inner", "uid=u1,dc=x"))
    corp.read(*everything)
    version = corp.directory.snapshot.version
    assert corp.read(*everything).plan.empty
    assert corp.directory.snapshot.version == version
    assert uid("Role", "data-scientist") in corp.parents("u1")


class TestBrake:
    def test_an_empty_answer_takes_nobody_out(self, corp: Corp) -> None:
        corp.read(*crowd(20))
        outcome = corp.read()
        assert outcome.held_back == 20
        assert all(corp.active(*(f"u{n}" for n in range(20))))
        assert "held back" in outcome.problem

    def test_a_confirmed_one_does(self, corp: Corp) -> None:
        corp.read(*crowd(20))
        assert corp.read(off=True).held_back == 0
        assert not any(corp.active(*(f"u{n}" for n in range(20))))

    def test_a_few_leave_without_a_word(self, corp: Corp) -> None:
        corp.read(*crowd(20))
        assert corp.read(*crowd(16)).held_back == 0
        assert corp.active("u15", "u16") == [True, False]

    def test_attributes_hidden_from_us_put_nobody_out(self, corp: Corp) -> None:
        corp.read(*crowd(20))
        assert corp.read(*crowd(20, active=False)).held_back == 20
        assert all(corp.active(*(f"u{n}" for n in range(20))))

    def test_members_hidden_from_us_stay_members(self, corp: Corp) -> None:
        names = [f"uid=u{n},dc=x" for n in range(20)]
        corp.read(*crowd(20), club("scientists", *names))
        outcome = corp.read(*crowd(20), club("scientists"))
        assert outcome.held_back == 20
        assert uid("Role", "data-scientist") in corp.parents("u0")

    def test_who_joins_joins_all_the_same(self, corp: Corp) -> None:
        corp.read(*crowd(20))
        corp.read(man("newcomer"))
        assert corp.active("newcomer", "u3") == [True, True]


class TestOneByOne:
    def test_an_incremental_reading_leaves_the_others_alone(self, corp: Corp) -> None:
        corp.read(*crowd(3))
        corp.read(man("u1", active=False), whole=False)
        assert corp.active("u0", "u1", "u2") == [True, False, True]

    def test_an_account_ends_when_its_time_is_over_without_being_read_again(self, corp: Corp) -> None:
        corp.read(man("dana", expires=NOW + timedelta(hours=1)))
        corp.clock.advance(3599)
        corp.read(whole=False)
        assert corp.active("dana") == [True]
        corp.clock.advance(2)
        corp.read(whole=False)
        assert corp.active("dana") == [False]
        corp.read(man("dana", expires=NOW + timedelta(days=9)), whole=False)
        assert corp.active("dana") == [True]

    def test_a_group_that_was_there_before_its_member_is_joined_later(self, corp: Corp) -> None:
        corp.read(club("scientists", "uid=dana,dc=x"))
        corp.read(man("dana"), whole=False)
        assert uid("Role", "data-scientist") in corp.parents("dana")

    def test_a_circle_is_cut_and_told_and_stays_cut(self, corp: Corp) -> None:
        circle = (
            man("dana"),
            club("scientists", "cn=b,dc=x"),
            club("b", "cn=c,dc=x"),
            club("c", "cn=scientists,dc=x", "uid=dana,dc=x"),
        )
        outcome = corp.read(*circle)
        assert "lies in itself" in outcome.problem
        parents = corp.parents("dana")
        assert uid("Group", "c") in parents
        assert corp.read(*circle).plan.empty

    def test_one_bad_entry_spoils_no_other(self, corp: Corp) -> None:
        corp.directory.apply(parse("users: { root: { roles: [admin] } }", "org.yaml"))
        outcome = corp.read(man("root"), man("bad\nname"), man("dana"))
        assert corp.active("dana") == [True]
        assert "root" in outcome.problem
        assert "bad" in outcome.problem

    def test_two_entries_of_one_name_do_not_become_one_person(self, corp: Corp) -> None:
        twin = Person(id="other", dn="uid=dana,ou=b,dc=x", name="DANA", subject="", attrs={"active": True})
        outcome = corp.read(man("dana"), twin)
        assert "the name `DANA` is taken" in outcome.problem
        assert [one.id for one in corp.directory.registry.of_source("ldap:corp")] == ["id-dana"]
        # Nor does the other one's presence keep her from leaving.
        corp.read(man("dana", active=False), twin)
        assert corp.active("dana") == [False]

    def test_who_is_barred_gets_nothing_new_and_loses_nothing(self, corp: Corp) -> None:
        corp.read(man("eve"), club("a", "uid=eve,dc=x"), club("b"))
        barred = frozenset({uid("User", "eve"), uid("User", "new")})
        corp.read(man("eve"), man("new"), club("a"), club("b", "uid=eve,dc=x"), whole=False, barred=barred)
        assert corp.parents("eve") == {uid("Group", "a")}
        assert corp.directory.entity(uid("User", "new")) is None

    def test_who_leaves_and_returns_is_herself(self, corp: Corp) -> None:
        corp.read(man("dana"), man("eli"))
        corp.read(man("eli"))
        corp.read(man("dana"), man("eli"))
        assert corp.active("dana", "eli") == [True, True]
        assert corp.directory.entity(uid("User", "dana#2")) is None
