"""A certified OpenID provider that we did not write: JWT, DPoP, private_key_jwt, introspection, rotation."""

from __future__ import annotations

import asyncio
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from doorward.core.clock import ManualClock, SystemClock
from doorward.core.errors import UnauthenticatedError
from doorward.core.feed import Known
from doorward.core.identity import Caller, IdentityLink
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.values import uid_to_json
from doorward.core.wire import Peer, Request
from doorward.directory.snapshot import Snapshot
from doorward.identity.authenticate import Authenticator
from doorward.identity.client_authentication import SignedAssertion
from doorward.identity.introspection import GRACE, NEGATIVE_SECONDS
from doorward.identity.issuer_keys import RETRY_INTERVAL, UNKNOWN_KEY_INTERVAL
from doorward.identity.nonces import Nonces
from doorward.settings import IntrospectionSettings, IssuerSettings
from support.proofs import ProofMaker
from support.real_provider import RealProvider, pem

GATE = "https://gate.example"
NOTEBOOK = EntityUid.of("Service", "notebook")
URL = f"{GATE}/llm/v1/models"


@pytest.fixture(scope="module")
def shared() -> Iterator[RealProvider]:
    with RealProvider(GATE) as one:
        yield one


@pytest.fixture
def provider(shared: RealProvider) -> RealProvider:
    if shared.process is None:
        shared.start()
    return shared


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


def make(
    provider: RealProvider, clock: Any, folder: Path, *, signed: bool = False, nonces: Nonces | None = None
) -> Authenticator:
    key = folder / "client.pem"
    key.touch(0o600)
    key.write_bytes(pem(provider.door_key))
    asking = IntrospectionSettings(client_id="doorward", client_key=key, cache=30, signed=signed)
    setting = IssuerSettings(issuer=provider.issuer, audience=GATE, introspection=asking)
    service = {"uid": uid_to_json(NOTEBOOK), "attrs": {"active": True}, "parents": []}
    link = IdentityLink(provider.issuer, "notebook", NOTEBOOK)
    snapshot = Snapshot.of(Known(version=1, entities=(service,), identities=(link,)))
    return Authenticator(
        lambda: snapshot, [setting], dict, clock, GATE, one_time=MemoryOneTime(clock), nonces=nonces
    )


def request(authorization: str, proof: str | None = None) -> Request:
    headers = [("authorization", authorization)]
    if proof is not None:
        headers.append(("dpop", proof))
    return Request(
        id="r", method="GET", path="/llm/v1/models", raw_path="/llm/v1/models", query=(), raw_query="",
        headers=tuple(headers), peer=Peer("127.0.0.1"),
        body=None,  # type: ignore[arg-type]  # nobody reads it
    )  # fmt: skip


async def enter(gate: Authenticator, authorization: str, proof: str | None = None) -> Caller:
    return await gate.authenticate(request(authorization, proof))


async def refused(gate: Authenticator, authorization: str, proof: str | None = None) -> UnauthenticatedError:
    with pytest.raises(UnauthenticatedError) as caught:
        await enter(gate, authorization, proof)
    return caught.value


async def test_its_jwt_access_tokens_open_and_end(
    provider: RealProvider, clock: ManualClock, tmp_path: Path
) -> None:
    gate = make(provider, clock, tmp_path)
    token = await asyncio.to_thread(provider.token)
    caller = await enter(gate, f"Bearer {token}")
    assert (caller.principal, caller.introspected) == (NOTEBOOK, False)
    clock.advance(661)
    assert (await refused(gate, f"Bearer {token}")).reason == "token_expired"
    await gate.close()


async def test_its_dpop_bound_tokens_need_a_fresh_proof(
    provider: RealProvider, clock: ManualClock, tmp_path: Path
) -> None:
    gate, prover = make(provider, clock, tmp_path), ProofMaker(SystemClock())
    token = await asyncio.to_thread(provider.token, prover=prover)
    proof = prover.proof(URL, token=token)
    assert (await enter(gate, f"DPoP {token}", proof)).shown_by == "dpop"
    assert (await refused(gate, f"DPoP {token}", proof)).reason == "proof_replayed"
    assert (await refused(gate, f"Bearer {token}")).reason == "bound_token_without_proof"
    stolen = ProofMaker(SystemClock()).proof(URL, token=token)
    assert (await refused(gate, f"DPoP {token}", stolen)).reason == "proof_by_another_key"
    await gate.close()


@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
async def test_its_opaque_tokens_are_asked_for_once_and_end_with_their_revocation(
    provider: RealProvider,
    clock: ManualClock,
    tmp_path: Path,
    signed: bool,  # noqa: FBT001 -- a table
) -> None:
    gate = make(provider, clock, tmp_path, signed=signed)
    token = await asyncio.to_thread(provider.token, opaque=True)
    assert "." not in token
    caller = await enter(gate, f"Bearer {token}")
    assert (caller.principal, caller.introspected) == (NOTEBOOK, True)
    await asyncio.to_thread(provider.revoke, token)
    assert await enter(gate, f"Bearer {token}")  # believed for the cap, and not longer
    assert gate.still_valid(caller)
    clock.advance(30)
    assert (await refused(gate, f"Bearer {token}")).reason == "token_not_active"
    assert not gate.still_valid(caller) or await _ends(gate, caller)
    await gate.close()


async def _ends(gate: Authenticator, caller: Caller) -> bool:
    for _ in range(200):
        await asyncio.sleep(0.02)
        if not gate.still_valid(caller):
            return True
    return False


async def test_an_open_stream_of_a_revoked_opaque_token_ends_without_another_request(
    provider: RealProvider, clock: ManualClock, tmp_path: Path
) -> None:
    gate = make(provider, clock, tmp_path)
    token = await asyncio.to_thread(provider.token, opaque=True)
    caller = await enter(gate, f"Bearer {token}")
    await asyncio.to_thread(provider.revoke, token)
    clock.advance(30)
    assert await _ends(gate, caller)
    await gate.close()


async def test_an_opaque_token_bound_to_a_key_needs_its_proof_too(
    provider: RealProvider, clock: ManualClock, tmp_path: Path
) -> None:
    gate, prover = make(provider, clock, tmp_path), ProofMaker(SystemClock())
    token = await asyncio.to_thread(provider.token, opaque=True, prover=prover)
    assert (await refused(gate, f"Bearer {token}")).reason == "bound_token_without_proof"
    assert await enter(gate, f"DPoP {token}", prover.proof(URL, token=token))
    await gate.close()


async def test_garbage_is_asked_for_once_and_never_opens(
    provider: RealProvider, clock: ManualClock, tmp_path: Path
) -> None:
    gate = make(provider, clock, tmp_path)
    asked: list[str] = []
    gate._verifier._introspectors[0]._post = _counting(gate, asked)  # noqa: SLF001 -- counts what goes out
    answers = await asyncio.gather(*(refused(gate, "Bearer not-a-token-of-anyone") for _ in range(20)))
    assert {answer.reason for answer in answers} == {"token_not_active"}
    assert len(asked) == 1
    clock.advance(NEGATIVE_SECONDS)
    await refused(gate, "Bearer not-a-token-of-anyone")
    assert len(asked) == 2
    await gate.close()


def _counting(gate: Authenticator, asked: list[str]) -> Any:
    async def post(url: str, form: Any, headers: Any) -> tuple[str, bytes]:
        asked.append(url)
        return await gate._fetcher.post(url, form, headers)  # noqa: SLF001 -- the real one

    return post


async def test_a_provider_that_is_down_costs_new_tokens_at_once_and_known_ones_after_their_time(
    provider: RealProvider, clock: ManualClock, tmp_path: Path
) -> None:
    gate = make(provider, clock, tmp_path)
    opaque = await asyncio.to_thread(provider.token, opaque=True)
    other = await asyncio.to_thread(provider.token, opaque=True)
    jwt = await asyncio.to_thread(provider.token)
    caller = await enter(gate, f"Bearer {opaque}")
    await enter(gate, f"Bearer {jwt}")
    await asyncio.to_thread(provider.stop)
    assert await enter(gate, f"Bearer {opaque}")
    assert (await refused(gate, f"Bearer {other}")).reason == "issuer_unreachable"
    clock.advance(31)
    assert (await refused(gate, f"Bearer {opaque}")).reason == "issuer_unreachable"
    assert gate.still_valid(caller)  # asked again, for a moment
    clock.advance(GRACE)
    assert not gate.still_valid(caller)
    assert await enter(gate, f"Bearer {jwt}")  # its keys are known until jwks_ttl
    clock.advance(300)
    assert (await refused(gate, f"Bearer {jwt}")).reason == "issuer_unreachable"
    await asyncio.to_thread(provider.start)
    clock.advance(RETRY_INTERVAL)
    assert await enter(gate, f"Bearer {jwt}")
    await gate.close()


async def test_it_rotates_its_keys(shared: RealProvider, clock: ManualClock, tmp_path: Path) -> None:
    provider = shared
    gate = make(provider, clock, tmp_path)
    old = await asyncio.to_thread(provider.token)
    await enter(gate, f"Bearer {old}")
    await asyncio.to_thread(provider.stop)
    provider.keys = [ECKey.generate_key("P-256"), *provider.keys]
    await asyncio.to_thread(provider.start)
    clock.advance(UNKNOWN_KEY_INTERVAL)
    new = await asyncio.to_thread(provider.token)
    await enter(gate, f"Bearer {new}")
    await enter(gate, f"Bearer {old}")
    await asyncio.to_thread(provider.stop)
    provider.keys = provider.keys[:1]
    await asyncio.to_thread(provider.start)
    clock.advance(300)
    assert (await refused(gate, f"Bearer {old}")).reason == "signing_key_unknown"
    assert await enter(gate, f"Bearer {new}")
    await gate.close()


async def test_our_own_client_assertions_are_refused_twice_by_it(provider: RealProvider) -> None:
    fields, _ = SignedAssertion("notebook", pem(provider.client_key), clock=SystemClock()).of(provider.issuer)
    form = {"grant_type": "client_credentials", "resource": GATE}
    ask = {"assertion": fields["client_assertion"]}
    assert await asyncio.to_thread(provider.post, "/token", form, **ask)
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(provider.post, "/token", form, **ask)
    assert caught.value.code == 401
