"""What a sign-out ends: tokens and MFA of before, at once; what came after it goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import UnauthenticatedError
from doorward.core.identity import SignOut
from doorward.core.model import EntityUid
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator

DANA = EntityUid.of("User", "dana")
HOUR = timedelta(hours=1)
Gates = Callable[..., Authenticator]


@pytest.fixture
def linked(registry: Any, idp: Any) -> None:
    registry.active.add(DANA)
    registry.links[idp.issuer, "00u1"] = DANA


def signed_out(registry: Any, clock: ManualClock, **which: Any) -> None:
    registry.sign_outs[DANA] = SignOut(DANA, **(which or {"before": clock.now()}))


@pytest.mark.usefixtures("linked")
class TestSignOut:
    async def test_a_token_of_before_is_refused_and_its_open_stream_ends(
        self, gate: Authenticator, idp: Any, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        token = idp.token()
        caller = await gate.authenticate(bearer(token))
        assert gate.still_valid(caller)
        clock.advance(1)
        signed_out(registry, clock)
        assert not gate.still_valid(caller)
        with pytest.raises(UnauthenticatedError) as refused:
            await gate.authenticate(bearer(token))
        assert refused.value.reason == "signed_out"

    async def test_a_token_of_after_is_good(
        self, gate: Authenticator, idp: Any, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        signed_out(registry, clock)
        clock.advance(1)
        caller = await gate.authenticate(bearer(idp.token()))
        assert gate.still_valid(caller)

    async def test_a_new_token_of_the_old_sign_in_is_refused(
        self, make_gate: Gates, idp: Any, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        # A refresh token that outlived the session must not bring the session back.
        signed_in = int(clock.now().timestamp())
        clock.advance(1)
        signed_out(registry, clock)
        clock.advance(1)
        gate = make_gate(trust=("auth_time",))
        with pytest.raises(UnauthenticatedError):
            await gate.authenticate(bearer(idp.token(auth_time=signed_in)))
        fresh = await gate.authenticate(bearer(idp.token(auth_time=int(clock.now().timestamp()))))
        assert fresh.principal == DANA

    async def test_nobody_else_is_signed_out(
        self, gate: Authenticator, idp: Any, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        omar = EntityUid.of("User", "omar")
        registry.active.add(omar)
        registry.links[idp.issuer, "00u2"] = omar
        signed_out(registry, clock)
        assert (await gate.authenticate(bearer(idp.token(sub="00u2")))).principal == omar

    async def test_an_api_key_is_no_sign_in(
        self, gate: Authenticator, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        record, text = api_keys.create(key_id="K", subject=DANA, now=clock.now())
        registry.keys.append(record)
        signed_out(registry, clock)
        assert gate.still_valid(await gate.authenticate(bearer(text.reveal())))


@pytest.mark.usefixtures("linked")
class TestMfaSignOut:
    TRUST = ("acr", "amr", "auth_time")

    def token(self, idp: Any, clock: ManualClock) -> str:
        return str(idp.token(amr=["mfa", "otp"], acr="aal2", auth_time=int(clock.now().timestamp())))

    async def test_mfa_of_before_counts_no_more_and_its_open_stream_ends(
        self, make_gate: Gates, idp: Any, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        gate, token = make_gate(trust=self.TRUST), self.token(idp, clock)
        caller = await gate.authenticate(bearer(token))
        assert (caller.mfa_at, caller.acr) == (clock.now(), "aal2")
        signed_out(registry, clock, mfa_before=clock.now())
        assert not gate.still_valid(caller)
        again = await gate.authenticate(bearer(token))
        assert (again.principal, again.mfa_at, again.acr) == (DANA, None, "")
        assert gate.still_valid(again)

    async def test_mfa_shown_since_counts(
        self, make_gate: Gates, idp: Any, registry: Any, clock: ManualClock, bearer: Any
    ) -> None:
        gate = make_gate(trust=self.TRUST)
        signed_out(registry, clock, mfa_before=clock.now())
        clock.advance(1)
        caller = await gate.authenticate(bearer(self.token(idp, clock)))
        assert (caller.mfa_at, caller.acr) == (clock.now(), "aal2")
        assert gate.still_valid(caller)


def test_of_two_sign_outs_the_later_moment_rules(clock: ManualClock) -> None:
    now = clock.now()
    one, other = SignOut(DANA, before=now), SignOut(DANA, before=now - HOUR, mfa_before=now)
    for joined in (one.joined(other), other.joined(one)):
        assert joined == SignOut(DANA, before=now, mfa_before=now)
    assert one.joined(None) == one
