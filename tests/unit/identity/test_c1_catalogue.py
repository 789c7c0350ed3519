"""The authentication rows of the attack catalogue (C1), one test each, by number; wider ones stand elsewhere.

Row 17 is also played on open streams (tests/system), row 18 against a real provider, row 20 over processes.
Row 21 (directory binds) belongs to the directories.
"""

# ruff: noqa: PLR0913, PLR0917 -- fixtures are arguments; one line a claim
from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidRequestError, UnauthenticatedError
from doorward.core.model import EntityUid
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator
from support.proofs import ProofMaker

DANA = EntityUid.of("User", "dana")
GATE = "https://gate.example"
Refusal = Callable[..., Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def unauthenticated(refusal: Refusal, *requests: Any) -> None:
    for request in requests:
        assert isinstance(await refusal(request), UnauthenticatedError)


async def test_c1_01_alg_none_in_all_cases(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for alg in ("none", "None", "NONE", "nOnE"):
        head, body, own = idp.token(header={"alg": alg}).split(".")
        await unauthenticated(refusal, *(bearer(f"{head}.{body}.{end}") for end in ("", own, "AA")))


async def test_c1_02_public_key_as_shared_secret(refusal: Refusal, bearer: Any, idp: Any) -> None:
    secret = json.dumps(idp.public("rsa")).encode()
    head = b64(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}).encode())
    signed = f"{head}.{b64(json.dumps(idp.claims()).encode())}"
    await unauthenticated(
        refusal, bearer(f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}")
    )


async def test_c1_03_header_alg_is_not_the_keys(refusal: Refusal, bearer: Any, idp: Any) -> None:
    idp.published = [idp.public("rsa", alg="PS256"), idp.public("ec")]
    await unauthenticated(refusal, bearer(idp.token(key="rsa", alg="RS256")))


async def test_c1_04_embedded_key(refusal: Refusal, bearer: Any, idp: Any) -> None:
    own = {"jwk": idp.public("ec-other"), "kid": ...}
    await unauthenticated(refusal, bearer(idp.token(key="ec-other", header=own)))


async def test_c1_05_key_elsewhere_is_never_fetched(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for name in ("jku", "x5u"):
        await unauthenticated(refusal, bearer(idp.token(header={name: "https://evil.example/k"})))
    assert idp.asked == []


async def test_c1_06_key_id_is_only_compared(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for kid in ("../../dev/null", "' OR 1=1 --", "k" * 10_000, "\x00\n"):
        await unauthenticated(refusal, bearer(idp.token(header={"kid": kid})))
    assert all("null" not in url for url in idp.asked)


async def test_c1_07_unknown_crit_and_b64(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for header in ({"crit": ["x"]}, {"crit": ["b64"], "b64": False}, {"b64": False}):
        await unauthenticated(refusal, bearer(idp.token(header=header)))


async def test_c1_08_wrong_use_and_loose_base64(refusal: Refusal, bearer: Any, idp: Any) -> None:
    token = idp.token()
    await unauthenticated(refusal, bearer(token + "="), bearer(token[:-1] + " "))
    idp.published = [idp.public("ec", use="enc"), idp.public("ed", key_ops=["sign"])]
    await unauthenticated(refusal, bearer(idp.token()), bearer(idp.token(key="ed", alg="EdDSA")))


async def test_c1_09_times(
    gate: Authenticator, refusal: Refusal, bearer: Any, idp: Any, clock: ManualClock
) -> None:
    now = int(clock.now().timestamp())
    for late in ({"exp": now - 61}, {"nbf": now + 61}, {"iat": now + 61}, {"exp": ...}, {"exp": 1e300}):
        await unauthenticated(refusal, bearer(idp.token(**late)))
    for near in ({"exp": now - 59}, {"nbf": now + 60}, {"iat": now + 60}):
        assert (await gate.authenticate(bearer(idp.token(**near)))).principal == DANA


async def test_c1_10_audience(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for aud in ("x", [GATE, "x"], [], GATE + "/", GATE[:-1], f"{GATE}.evil", f"{GATE}/store", {"a": GATE}):
        await unauthenticated(refusal, bearer(idp.token(aud=aud)))


async def test_c1_11_issuer_mix_up(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for iss in ("https://idp.example/", "https://IDP.example", "https://other.example", "", 7):
        await unauthenticated(refusal, bearer(idp.token(iss=iss)))


async def test_c1_12_another_kind_of_token(refusal: Refusal, bearer: Any, idp: Any) -> None:
    for typ in ("JWT", "id_token", "logout+jwt", "dpop+jwt", "refresh", ...):
        await unauthenticated(refusal, bearer(idp.token(header={"typ": typ})))


async def test_c1_13_tokens_that_begin_alike(
    gate: Authenticator, bearer: Any, idp: Any, registry: Any
) -> None:
    registry.links["https://idp.example", "00u2"] = EntityUid.of("User", "omar")
    long = {"pad": "x" * 400}
    one, other = idp.token(**long), idp.token(**long, sub="00u2")
    assert one[:64] == other[:64]
    for _ in range(2):
        assert (await gate.authenticate(bearer(one))).principal == DANA
        assert (await gate.authenticate(bearer(other))).principal.id == "omar"
    assert gate.cached(bearer(one)).principal == DANA  # type: ignore[union-attr]  # it was seen
    assert gate.cached(bearer(one[:-1])) is None


async def test_c1_14_query_text_in_the_header(refusal: Refusal, ask: Any) -> None:
    for text in ("' OR 1=1 --", "%s%s%n", "x; DROP TABLE keys", "${jndi:ldap://x}", "{{7*7}}"):
        await unauthenticated(refusal, ask(("authorization", f"Bearer {text}")))


async def test_c1_15_two_credentials(refusal: Refusal, ask: Any, idp: Any) -> None:
    token = idp.token()
    for headers in (
        (("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")),
        (("authorization", f"Basic ZDpk, Bearer {token}"),),
        (("authorization", f"Bearer {token}"), ("x-api-key", "dw_x")),
        (("authorization", f"Bearer {token}"), ("dpop", "x")),
    ):
        assert isinstance(await refusal(ask(*headers)), InvalidRequestError)
    assert isinstance(await refusal(ask(query=(("access_token", token),))), InvalidRequestError)


async def test_c1_16_proof_of_possession(
    gate: Authenticator, refusal: Refusal, ask: Any, idp: Any, clock: ManualClock
) -> None:
    prover = ProofMaker(clock)
    token = idp.token(cnf={"jkt": prover.thumbprint})
    url = f"{GATE}/llm/v1/models"

    def sent(proof: str) -> Any:
        return ask(("authorization", f"DPoP {token}"), ("dpop", proof))

    good = prover.proof(url, token=token)
    assert (await gate.authenticate(sent(good))).principal == DANA
    wrong = [good, prover.proof(url, token=token, htm="POST"), prover.proof(f"{GATE}/x", token=token)]
    wrong += [prover.proof(url, token="other"), ProofMaker(clock).proof(url, token=token)]
    await unauthenticated(
        refusal, *(sent(proof) for proof in wrong), ask(("authorization", f"Bearer {token}"))
    )


@pytest.mark.parametrize("event", ["revoked", "unlinked", "disabled"])
async def test_c1_17_what_was_revoked_is_out_at_once(
    gate: Authenticator, refusal: Refusal, bearer: Any, idp: Any, registry: Any, event: str
) -> None:
    token = idp.token(jti="j1")
    caller = await gate.authenticate(bearer(token))
    assert gate.cached(bearer(token)) is not None
    match event:
        case "revoked":
            registry.revoked.add("j1")
        case "unlinked":
            registry.links.clear()
        case "disabled":
            registry.active.discard(DANA)
    assert gate.cached(bearer(token)) is None
    assert not gate.still_valid(caller)
    await unauthenticated(refusal, bearer(token))


async def test_c1_18_a_storm_of_unknown_keys_is_one_refresh(
    gate: Authenticator, refusal: Refusal, bearer: Any, idp: Any, clock: ManualClock
) -> None:
    await gate.authenticate(bearer(idp.token()))
    before = len(idp.asked)
    clock.advance(5)
    storm = [bearer(idp.token(header={"kid": f"k{number}"})) for number in range(200)]
    await asyncio.gather(*(refusal(one) for one in storm))
    assert len(idp.asked) - before <= 2  # discovery and keys, once


async def test_c1_19_large_and_deep_tokens_cost_little(refusal: Refusal, bearer: Any, idp: Any) -> None:
    deep = b'{"a":' * 3000 + b"1" + b"}" * 3000
    attacks = ["x" * 1_000_000, idp.token(**{f"c{n}": 1 for n in range(10_000)}), idp.token(raw_header=deep)]
    requests = [bearer(text) for text in attacks]
    tracemalloc.start()
    started = time.perf_counter()
    await unauthenticated(refusal, *requests)
    spent, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 1.0
    assert peak < 8_000_000


async def test_c1_20_one_proof_sent_fifty_times_at_once(
    gate: Authenticator, ask: Any, idp: Any, clock: ManualClock
) -> None:
    prover = ProofMaker(clock)
    token = idp.token(cnf={"jkt": prover.thumbprint})
    proof = prover.proof(f"{GATE}/llm/v1/models", token=token)
    asked = ask(("authorization", f"DPoP {token}"), ("dpop", proof))
    answers = await asyncio.gather(*(gate.authenticate(asked) for _ in range(50)), return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1


def test_c6_87_a_key_is_kept_as_its_hash_alone(clock: ManualClock) -> None:
    record, text = api_keys.create(key_id="K", subject=DANA, now=clock.now())
    assert text.reveal() not in repr(record)
    assert record.hash == hashlib.sha256(text.reveal().encode()).hexdigest()
    assert text.reveal() not in repr(text)
