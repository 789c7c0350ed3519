"""Attacks 18 and 76: rotation, storms of unknown keys, outages, garbage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError
from doorward.core.wire import Request
from doorward.identity.authenticate import Authenticator
from doorward.identity.issuer_keys import RETRY_INTERVAL, UNKNOWN_KEY_INTERVAL, FetchedKeys

IDP = "https://idp.example"
TTL = 300.0
Ask = Callable[..., Request]
Refusal = Callable[..., Any]


async def test_keys_are_fetched_once_for_many_tokens(gate: Authenticator, bearer: Ask, idp: Any) -> None:
    await asyncio.gather(*(gate.authenticate(bearer(idp.token())) for _ in range(50)))
    assert idp.asked == [f"{IDP}/.well-known/openid-configuration", f"{IDP}/jwks"]


async def test_nothing_is_fetched_before_a_token_needs_it(gate: Authenticator, idp: Any) -> None:
    assert gate is not None
    assert idp.asked == []


async def test_a_new_key_is_accepted_and_the_old_one_refused_after_rotation(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    old = idp.token()
    await gate.authenticate(bearer(old))
    idp.published = [idp.public("ec-other")]
    clock.advance(UNKNOWN_KEY_INTERVAL)
    await gate.authenticate(bearer(idp.token(key="ec-other")))
    # The token of the withdrawn key was verified before; that does not save it.
    assert (await refusal(bearer(old))).reason == "signing_key_unknown"


async def test_a_storm_of_unknown_keys_causes_one_refresh_per_interval(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    await gate.authenticate(bearer(idp.token()))
    clock.advance(UNKNOWN_KEY_INTERVAL)
    before = len(idp.asked)
    storm = [bearer(idp.token(header={"kid": f"k{n}"})) for n in range(100)]
    await asyncio.gather(*(refusal(asked) for asked in storm))
    for asked in storm:
        await refusal(asked)
    assert len(idp.asked) - before == 2
    clock.advance(UNKNOWN_KEY_INTERVAL)
    await refusal(storm[0])
    assert len(idp.asked) - before == 4


async def test_a_known_key_with_the_wrong_algorithm_causes_no_refresh(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    await gate.authenticate(bearer(idp.token()))
    clock.advance(UNKNOWN_KEY_INTERVAL)
    before = len(idp.asked)
    await refusal(bearer(idp.token(header={"kid": "rsa"})))
    assert len(idp.asked) == before


async def test_keys_serve_through_an_outage_until_their_time_and_heal_by_themselves(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    def fresh() -> Request:
        return bearer(idp.token())

    await gate.authenticate(fresh())
    idp.down = True
    clock.advance(TTL - 1)
    await gate.authenticate(fresh())
    await asyncio.sleep(0)
    clock.advance(1)
    assert (await refusal(fresh())).reason == "issuer_unreachable"
    idp.down = False
    clock.advance(RETRY_INTERVAL)
    await gate.authenticate(fresh())


async def test_a_verified_token_does_not_outlive_the_keys_either(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    token = idp.token(exp=int(clock.now().timestamp()) + 86_400)
    await gate.authenticate(bearer(token))
    idp.down = True
    clock.advance(TTL)
    assert (await refusal(bearer(token))).reason == "issuer_unreachable"


async def test_an_issuer_down_at_the_start_is_a_401_and_heals(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    idp.down = True
    token = bearer(idp.token())
    for _ in range(20):
        assert (await refusal(token)).reason == "issuer_unreachable"
    assert len(idp.asked) == 2  # one attempt: both places of discovery
    idp.down = False
    clock.advance(RETRY_INTERVAL)
    await gate.authenticate(token)


async def test_keys_are_refreshed_in_the_background_before_their_time(
    gate: Authenticator, bearer: Ask, idp: Any, clock: ManualClock
) -> None:
    token = idp.token(exp=int(clock.now().timestamp()) + 86_400)
    for _ in range(10):
        await gate.authenticate(bearer(token))
        clock.advance(TTL / 2)
        await gate.authenticate(bearer(token))
        for _ in range(10):
            await asyncio.sleep(0)
        clock.advance(TTL / 2 - 1)
    assert len(idp.asked) >= 20
    assert (await gate.authenticate(bearer(token))).subject == "00u1"


async def test_a_client_that_leaves_does_not_stop_the_refresh_for_others(
    gate: Authenticator, bearer: Ask, idp: Any
) -> None:
    idp.hold = asyncio.Event()
    leaver, stayer = (asyncio.create_task(gate.authenticate(bearer(idp.token()))) for _ in range(2))
    while not idp.asked:
        await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    idp.hold.set()
    assert (await stayer).subject == "00u1"
    assert idp.asked == [f"{IDP}/.well-known/openid-configuration", f"{IDP}/jwks"]


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/jwks", b"not json"),
        ("/jwks", b"[]"),
        ("/jwks", b'{"keys":{}}'),
        ("/jwks", b'{"keys":[]}'),
        ("/jwks", b'{"keys":[null,7,"x",[],{"kty":"EC"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}'),
        ("/jwks", json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "ec"}]}).encode()),
        ("/jwks", json.dumps({"keys": [{}] * 65}).encode()),
        (
            "/.well-known/openid-configuration",
            b'{"issuer":"https://evil.example","jwks_uri":"https://idp.example/jwks"}',
        ),
        ("/.well-known/openid-configuration", b'{"issuer":"https://idp.example"}'),
        (
            "/.well-known/openid-configuration",
            b'{"issuer":"https://idp.example","jwks_uri":"http://127.0.0.1/jwks"}',
        ),
        (
            "/.well-known/openid-configuration",
            b'{"issuer":"https://idp.example","jwks_uri":"file:///etc/passwd"}',
        ),
        ("/.well-known/openid-configuration", b'{"issuer":"https://idp.example","jwks_uri":["x"]}'),
    ],
)
async def test_garbage_from_an_issuer_is_no_key(
    bearer: Ask, idp: Any, refusal: Refusal, path: str, document: bytes
) -> None:
    idp.documents[IDP + path] = document
    assert (await refusal(bearer(idp.token()))).reason == "issuer_unreachable"
    assert all(url.startswith(IDP) for url in idp.asked)


async def test_garbage_does_not_replace_good_keys(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    await gate.authenticate(bearer(idp.token()))
    idp.documents[f"{IDP}/jwks"] = b'{"keys":[]}'
    clock.advance(UNKNOWN_KEY_INTERVAL)
    await refusal(bearer(idp.token(header={"kid": "new"})))
    await gate.authenticate(bearer(idp.token()))


async def test_an_oauth_server_without_openid_is_found_as_well(
    bearer: Ask, idp: Any, clock: ManualClock
) -> None:
    del bearer
    issuer = f"{IDP}/tenant"
    where = f"{IDP}/.well-known/oauth-authorization-server/tenant"
    idp.documents[where] = json.dumps({"issuer": issuer, "jwks_uri": f"{IDP}/jwks"}).encode()
    keys = FetchedKeys(issuer, fetch=idp.fetch, clock=clock, ttl=TTL)
    assert (await keys.find("ec", "ES256")).kid == "ec"


@pytest.mark.parametrize(
    "issuer",
    [
        "http://idp.example",
        "ftp://idp.example",
        "idp.example",
        "https://",
        "https://user@idp.example",
        "https://idp.example?x=1",
        "https://idp.example#x",
        "file:///etc/passwd",
        "",
    ],
)
def test_an_issuer_is_asked_over_tls_or_on_loopback(idp: Any, clock: ManualClock, issuer: str) -> None:
    with pytest.raises(InvalidConfigError):
        FetchedKeys(issuer, fetch=idp.fetch, clock=clock, ttl=TTL)
    for fine in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9", "https://idp.example/x"):
        FetchedKeys(fine, fetch=idp.fetch, clock=clock, ttl=TTL)
