"""What identity providers say of people who come in: who they become, and what it never does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from doorward.core.arrival import Arrival
from doorward.core.clock import ManualClock
from doorward.core.errors import ConflictError, DeniedError, InvalidRequestError
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.directory.administration import Directory
from doorward.directory.arrivals import settle
from doorward.directory.org import parse
from doorward.store.opened import Store

IDP, OTHER = "https://idp.example", "https://other.example"
DANA = EntityUid.of("User", "dana")
ORG = f"""
users:
  dana: {{ groups: [lab], department: risk, email: dana@example.com,
          identities: [{{ issuer: "{IDP}", subject: "00u1" }}] }}
services:
  etl: {{ owner: dana, identities: [{{ issuer: "{IDP}", subject: etl }}] }}
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 23, 12, tzinfo=UTC))


@pytest.fixture
def directory(tmp_path: Path, clock: ManualClock) -> Any:
    store = Store.open("sqlite:///state.db", tmp_path)
    one = Directory(store, clock, IdSource(clock))
    one.apply(parse(ORG, "org.yaml"))
    yield one
    store.close()


def no_objection(*_: object) -> None:
    return None


def arrive(directory: Directory, clock: ManualClock, **more: Any) -> EntityUid | None:
    fields = {"issuer": IDP, "subject": "00u1", "max_age": 100.0, **more}
    return settle(directory, Arrival(**fields), now=clock.now(), object_to=no_objection)


def groups(directory: Directory, uid: EntityUid) -> set[str]:
    entity = directory.snapshot.entity(uid)
    assert entity is not None
    return {parent.id for parent in entity.parents if parent.kind == "Group"}


def test_mapped_groups_add_to_the_files_and_go_with_the_next_token(
    directory: Directory, clock: ManualClock
) -> None:
    assert arrive(directory, clock, groups=("fraud", "house")) == DANA
    assert groups(directory, DANA) == {"lab", "fraud", "house"}
    arrive(directory, clock, groups=("house",))
    assert groups(directory, DANA) == {"lab", "house"}
    arrive(directory, clock, groups=())
    assert groups(directory, DANA) == {"lab"}


def test_somebody_unknown_is_nobody_unless_the_issuer_provisions(
    directory: Directory, clock: ManualClock
) -> None:
    version = directory.snapshot.version
    assert arrive(directory, clock, subject="00u9") is None
    assert directory.snapshot.version == version
    made = arrive(directory, clock, subject="00u9", provision=True, name="nina", groups=("fraud",))
    assert made == EntityUid.of("User", "nina")
    assert directory.snapshot.principal_of(IDP, "00u9") == made
    assert directory.snapshot.is_active(made)
    assert groups(directory, made) == {"fraud"}


def test_a_newcomer_never_takes_over_who_is_there_by_name_or_by_mail(
    directory: Directory, clock: ManualClock
) -> None:
    with pytest.raises(ConflictError):
        arrive(directory, clock, subject="00u9", provision=True, name="dana")
    assert directory.snapshot.principal_of(IDP, "00u9") is None
    made = arrive(
        directory, clock, subject="00u9", provision=True, name="nina", attrs=(("email", "dana@example.com"),)
    )
    assert made == EntityUid.of("User", "nina")


def test_the_same_subject_of_another_issuer_is_somebody_else(
    directory: Directory, clock: ManualClock
) -> None:
    made = arrive(directory, clock, issuer=OTHER, provision=True)
    assert made == EntityUid.of("User", "00u1")
    assert directory.snapshot.principal_of(IDP, "00u1") == DANA


def test_a_recycled_subject_of_somebody_who_was_unlinked_stays_out(
    directory: Directory, clock: ManualClock
) -> None:
    made = arrive(directory, clock, subject="00u9", provision=True, name="nina")
    assert made is not None
    directory.unlink_identity(IDP, "00u9")
    with pytest.raises(ConflictError, match="taken away"):
        arrive(directory, clock, subject="00u9", provision=True, name="nina")
    assert directory.snapshot.principal_of(IDP, "00u9") is None


def test_who_stays_away_is_out_after_the_sources_time_and_back_with_a_token(
    directory: Directory, clock: ManualClock
) -> None:
    made = arrive(directory, clock, subject="00u9", provision=True, name="nina")
    assert made is not None
    clock.advance(101)
    directory.age()
    assert not directory.snapshot.is_active(made)
    arrive(directory, clock, subject="00u9", provision=True, name="nina")
    assert directory.snapshot.is_active(made)
    # Whom a file declares the source's silence does not put out.
    arrive(directory, clock, groups=("fraud",))
    clock.advance(101)
    directory.age()
    assert directory.snapshot.is_active(DANA)


def test_a_word_by_which_somebody_could_govern_is_refused_and_changes_nothing(
    directory: Directory, clock: ManualClock
) -> None:
    def object_to(*_: object) -> None:
        raise DeniedError("no")

    told = Arrival(issuer=IDP, subject="00u1", groups=("admins",), max_age=100.0)
    with pytest.raises(DeniedError):
        settle(directory, told, now=clock.now(), object_to=object_to)
    assert groups(directory, DANA) == {"lab"}


def test_a_workload_gets_groups_and_no_attributes_of_people(directory: Directory, clock: ManualClock) -> None:
    etl = arrive(directory, clock, subject="etl", groups=("jobs",), attrs=(("department", "risk"),))
    assert etl == EntityUid.of("Service", "etl")
    assert groups(directory, etl) == {"jobs"}
    assert "department" not in directory.snapshot.entity(etl).attrs  # type: ignore[union-attr]  # it is there


@pytest.mark.parametrize("name", ["", " x", "a\nb", "x" * 600])
def test_a_group_that_could_not_stand_in_a_policy_is_refused(
    directory: Directory, clock: ManualClock, name: str
) -> None:
    with pytest.raises(InvalidRequestError):
        arrive(directory, clock, groups=(name,))


def test_nothing_said_anew_is_no_new_word(directory: Directory, clock: ManualClock) -> None:
    arrive(directory, clock, groups=("fraud",))
    before = directory.snapshot.entity(DANA)
    clock.advance(timedelta(seconds=10).total_seconds())
    arrive(directory, clock, groups=("fraud",))
    assert directory.snapshot.entity(DANA) == before


def test_a_newcomer_has_her_groups_although_time_passed_while_she_was_made(
    directory: Directory, clock: ManualClock
) -> None:
    told = Arrival(issuer=IDP, subject="00u9", groups=("fraud",), name="nina", provision=True, max_age=100.0)
    made = settle(directory, told, now=clock.now() - timedelta(seconds=1), object_to=no_objection)
    assert made is not None
    assert groups(directory, made) == {"fraud"}
