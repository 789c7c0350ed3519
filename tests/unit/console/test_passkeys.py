"""Challenges: ours, in time, for one purpose, answered once; and enrolment options that demand the most."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from doorward.console.passkeys import Challenges, enrol_options, sign_in_options, user_handle
from doorward.core.clock import ManualClock
from doorward.core.errors import UnauthenticatedError
from doorward.core.model import EntityUid

ADMIN = EntityUid.of("User", "admin")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_challenge_of_ours_is_accepted_until_it_was_answered(clock: ManualClock) -> None:
    challenges = Challenges(clock)
    challenge = challenges.issue("sign-in")
    challenges.check(challenge, "sign-in")
    challenges.answered(challenge)
    with pytest.raises(UnauthenticatedError, match="given before"):
        challenges.check(challenge, "sign-in")


def test_a_challenge_of_another_purpose_or_process_is_refused(clock: ManualClock) -> None:
    challenge = Challenges(clock, b"k" * 32).issue("enrol:a")
    for other, purpose in ((Challenges(clock, b"k" * 32), "enrol:b"), (Challenges(clock), "enrol:a")):
        with pytest.raises(UnauthenticatedError, match="not one of ours"):
            other.check(challenge, purpose)


@pytest.mark.parametrize("position", range(0, 56, 5))
def test_a_challenge_with_any_byte_changed_is_refused(clock: ManualClock, position: int) -> None:
    challenges = Challenges(clock)
    forged = bytearray(challenges.issue("sign-in"))
    forged[position] ^= 1
    with pytest.raises(UnauthenticatedError):
        challenges.check(bytes(forged), "sign-in")


@pytest.mark.parametrize("challenge", [b"", b"x" * 55, b"x" * 57, b"x" * 10_000])
def test_a_challenge_of_another_length_is_refused(clock: ManualClock, challenge: bytes) -> None:
    with pytest.raises(UnauthenticatedError):
        Challenges(clock).check(challenge, "sign-in")


def test_after_five_minutes_it_is_over_and_forgotten(clock: ManualClock) -> None:
    challenges = Challenges(clock)
    early = challenges.issue("sign-in")
    challenges.answered(early)
    clock.advance(300)
    with pytest.raises(UnauthenticatedError, match="five minutes"):
        challenges.check(early, "sign-in")
    challenges.answered(challenges.issue("sign-in"))
    assert len(challenges._answered) == 1  # noqa: SLF001 -- the bound on memory is the claim


def test_enrolment_demands_a_resident_key_and_user_verification(clock: ManualClock) -> None:
    options = enrol_options(Challenges(clock), rp_id="localhost", principal=ADMIN, known=(), purpose="p")
    chosen = options["authenticatorSelection"]
    assert chosen["residentKey"] == "required"
    assert chosen["userVerification"] == "required"


def test_sign_in_options_name_no_user_and_no_key(clock: ManualClock) -> None:
    options = sign_in_options(Challenges(clock), rp_id="localhost")
    assert options["userVerification"] == "required"
    assert not options.get("allowCredentials")


def test_a_user_handle_holds_no_personal_data() -> None:
    assert b"admin" not in user_handle(ADMIN)
    assert user_handle(ADMIN) != user_handle(EntityUid.of("Service", "admin"))
