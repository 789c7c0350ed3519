from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from doorward.core.clock import ManualClock
from doorward.core.context import DeviceContext
from doorward.core.errors import DeniedError, InvalidRequestError
from doorward.core.feed import Place
from doorward.core.identity import Caller
from doorward.core.model import Entity, EntityUid
from doorward.core.obligation import StepUp
from doorward.gateway.circumstances import Circumstances, context_of, purpose_of
from doorward.gateway.floods import Floods
from doorward.gateway.obligations import challenge_of, unmet_step_up

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DANA, LAPTOP, ETL = (
    EntityUid.of("User", "dana"),
    EntityUid.of("Device", "laptop-7"),
    EntityUid.of("Service", "etl"),
)
TESTING = EntityUid.of("Environment", "testing")


class World:
    version = 1

    def __init__(self, **device):
        posture = {"active": True, "managed": True, "compliant": True, "risk": 0} | device
        self.entities = {
            DANA: Entity(DANA, {"active": True, "risk": 10}),
            LAPTOP: Entity(LAPTOP, posture),
            ETL: Entity(ETL, {"active": True, "risk": 0, "environment": TESTING}),
        }

    def entity(self, uid):
        return self.entities.get(uid)

    def zone_of(self, _ip):
        return "office"

    def place_of(self, _ip):
        return Place()

    def purposes_of(self, principal):
        return frozenset({"fraud-model"}) if principal == DANA else frozenset()


def context(caller, world=None, principal=None, **fields):
    circumstances = Circumstances(caller=caller, ip="10.0.0.1", **fields)
    return context_of(circumstances, principal=principal or caller.principal, world=world or World(), now=NOW)


def test_possession_alone_proves_a_device():
    bearer = Caller(DANA, "k", "key", device=LAPTOP)
    assert context(bearer).device == DeviceContext(
        known=True, proven=False, managed=True, compliant=True, id=LAPTOP
    )
    proven = Caller(DANA, "k", "key", device=LAPTOP, device_proven=True)
    assert context(proven).device.proven


@pytest.mark.parametrize("posture", [{"active": False}, {"active": "yes"}])
def test_a_device_that_is_not_active_is_not_known(posture):
    proven = Caller(DANA, "k", "key", device=LAPTOP, device_proven=True)
    assert context(proven, World(**posture)).device == DeviceContext()


def test_a_device_nobody_registered_is_not_known():
    caller = Caller(DANA, "k", "key", device=EntityUid.of("Device", "ghost"), device_proven=True)
    assert context(caller).device == DeviceContext()
    assert context(caller).risk == 100


def test_posture_must_be_true_not_merely_there():
    caller = Caller(DANA, "k", "key", device=LAPTOP)
    assert context(caller, World(managed="true", compliant=1)).device.managed is False


def test_risk_is_the_worse_of_person_and_device_and_unknown_is_worst():
    assert context(Caller(DANA, "k", "key", device=LAPTOP), World(risk=60)).risk == 60
    assert context(Caller(DANA, "k", "key")).risk == 10
    assert context(Caller(EntityUid.of("User", "nobody"), "k", "key")).risk == 100


def test_ages_are_whole_seconds_and_never_negative():
    caller = Caller(
        DANA, "k", "token", signed_in_at=NOW + timedelta(seconds=30), mfa_at=NOW - timedelta(seconds=90)
    )
    session = context(caller).session
    assert (session.age, session.mfa, session.mfa_age) == (0, True, 90)


def test_a_workload_brings_its_environment():
    assert context(Caller(ETL, "k", "key")).environment == TESTING
    assert context(Caller(DANA, "k", "key")).environment is None


def test_a_purpose_that_is_not_the_agents_does_not_reach_its_context():
    caller = Caller(DANA, "k", "token", actors=(ETL,))
    assert context(caller, purpose="fraud-model").purpose == "fraud-model"
    assert context(caller, principal=ETL, purpose="fraud-model").purpose is None


def test_purposes_are_assigned_not_claimed():
    plain, bound = Caller(DANA, "k", "key"), Caller(DANA, "k", "key", bound_purpose="fraud-model")
    assert purpose_of(plain, None, World()) is None
    assert purpose_of(plain, "fraud-model", World()) == "fraud-model"
    assert purpose_of(bound, None, World()) == "fraud-model"
    assert purpose_of(bound, "fraud-model", World()) == "fraud-model"
    with pytest.raises(DeniedError, match="fraud-model"):
        purpose_of(plain, "other", World())
    with pytest.raises(DeniedError):
        purpose_of(plain, "", World())
    with pytest.raises(InvalidRequestError):
        purpose_of(bound, "other", World())


@pytest.mark.parametrize(
    ("step", "acr", "mfa_ago", "met"),
    [
        (StepUp("aal2", 900), "aal2", 900, True),
        (StepUp("aal2", 900), "aal2", 901, False),
        (StepUp("aal2"), "", 10, True),
        (StepUp("aal3"), "aal2", 10, False),
        (StepUp("aal1"), "aal2", 10, True),
        (StepUp("urn:gold"), "urn:gold", 10, True),
        (StepUp("urn:gold"), "aal3", 10, False),
        (StepUp("aal2"), "aal1", None, False),
    ],
)
def test_a_step_up_is_met_or_not(step, acr, mfa_ago, met):
    mfa_at = None if mfa_ago is None else NOW - timedelta(seconds=mfa_ago)
    caller = Caller(DANA, "k", "token", acr=acr, signed_in_at=NOW, mfa_at=mfa_at)
    assert (unmet_step_up((step,), caller, NOW) is None) is met
    assert step.acr in challenge_of(step, caller)


def test_floods_remember_a_bounded_number_of_sources():
    clock = ManualClock(NOW)
    floods = Floods(clock, max_keys=10)
    firsts = sum(floods.note(f"10.0.{n // 250}.{n % 250}", "unauthenticated") for n in range(1000))
    assert firsts == 11
    clock.advance(1)
    bursts = floods.collect()
    assert bursts is not None
    assert [(b.ip, b.count) for b in bursts.sources] == [("others", 989)]
    assert bursts.seconds == (989,)
    assert floods.collect() is None


def test_a_million_refusals_are_few_records_whatever_their_source_and_none_is_uncounted():
    clock = ManualClock(NOW)
    floods = Floods(clock)
    single = counted = written = 0
    for second in range(1000):
        for number in range(40):
            single += floods.note(f"10.{second % 250}.0.{number}", "unauthenticated")
        bursts = floods.collect()
        if bursts is not None:
            written += 1
            counted += sum(each.count for each in bursts.sources)
            assert len(bursts.sources) <= 257
            assert sum(bursts.seconds) == sum(each.count for each in bursts.sources)
        clock.advance(1)
    last = floods.collect(last=True)
    assert last is not None
    assert single + counted + sum(each.count for each in last.sources) == 40_000
    assert single <= 60 + 200
    assert written <= 200


def test_a_calm_second_shows_each_refusal_and_the_next_flood_at_once():
    clock = ManualClock(NOW)
    floods = Floods(clock)
    for _ in range(20):
        assert floods.note("10.0.0.1", "unauthenticated")
        clock.advance(7)
    assert floods.collect() is None
    floods.note("10.0.0.1", "unauthenticated")
    assert not floods.note("10.0.0.1", "unauthenticated")
    clock.advance(1)
    assert floods.collect() is not None


def test_a_sign_in_nobody_can_date_never_counts_as_fresh() -> None:
    undated = Caller(principal=LAPTOP, credential="c", method="client-certificate")
    context = context_of(
        Circumstances(caller=undated, ip="10.0.0.1"), principal=LAPTOP, world=World(), now=NOW
    )
    assert context.session.age > 10 * 365 * 86_400
