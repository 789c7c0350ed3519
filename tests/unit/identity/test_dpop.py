"""DPoP (RFC 9449): a bound token and its proof; attack 16 of the catalogue, each tampering by name."""

# ruff: noqa: PLR0913, PLR0917, FBT001 -- fixtures are arguments
from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidRequestError, UnauthenticatedError, UnavailableError
from doorward.core.identity import Method
from doorward.core.onetime import MemoryOneTime
from doorward.identity.authenticate import Authenticator
from doorward.identity.nonces import LIFETIME, Nonces, shared_key
from doorward.identity.own_addresses import OwnAddresses
from support.proofs import ProofMaker

GATE = "https://gate.example"
URL = f"{GATE}/llm/v1/models"
Refusal = Callable[..., Any]


@pytest.fixture
def prover(clock: ManualClock) -> ProofMaker:
    return ProofMaker(clock)


@pytest.fixture
def bound(idp: Any, prover: ProofMaker) -> str:
    return idp.token(cnf={"jkt": prover.thumbprint})


@pytest.fixture
def send(ask: Callable[..., Any]) -> Callable[..., Any]:
    def make(token: str, proof: str | None, scheme: str = "DPoP", **more: Any) -> Any:
        headers = [("authorization", f"{scheme} {token}")]
        if proof is not None:
            headers.append(("dpop", proof))
        return ask(*headers, **more)

    return make


async def test_a_bound_token_with_its_proof_is_let_in(
    gate: Authenticator, bound: str, prover: ProofMaker, send: Any
) -> None:
    caller = await gate.authenticate(send(bound, prover.proof(URL, token=bound)))
    assert (caller.principal.id, caller.method, caller.shown_by) == ("dana", Method.TOKEN, "dpop")
    assert gate.still_valid(caller)


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (ECKey.generate_key("P-256"), "ES256"),
        (ECKey.generate_key("P-384"), "ES384"),
        (OKPKey.generate_key("Ed25519"), "EdDSA"),
        (RSAKey.generate_key(2048), "PS256"),
        (RSAKey.generate_key(2048), "RS256"),
    ],
)
async def test_every_advertised_kind_of_proof_key_works(
    gate: Authenticator, idp: Any, clock: ManualClock, send: Any, key: Any, alg: str
) -> None:
    prover = ProofMaker(clock, key=key, alg=alg)
    token = idp.token(cnf={"jkt": prover.thumbprint})
    assert (await gate.authenticate(send(token, prover.proof(URL, token=token)))).shown_by == "dpop"


OTHER = ECKey.generate_key("P-256")
# name -> what the proof is made with, and the reason on record
TAMPERINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"htm": "POST"}, "proof_for_another_method"),
    "method in lower case": ({"htm": "get"}, "proof_for_another_method"),
    "no method": ({"htm": ...}, "proof_for_another_method"),
    "another path": ({"htu": f"{GATE}/llm/v1/chat"}, "proof_for_another_url"),
    "another host": ({"htu": "https://evil.example/llm/v1/models"}, "proof_for_another_url"),
    "another port": ({"htu": "https://gate.example:8443/llm/v1/models"}, "proof_for_another_url"),
    "another scheme": ({"htu": "http://gate.example/llm/v1/models"}, "proof_for_another_url"),
    "user info": ({"htu": "https://gate.example@evil.example/llm/v1/models"}, "proof_for_another_url"),
    "path alone": ({"htu": "/llm/v1/models"}, "proof_for_another_url"),
    "no url": ({"htu": ...}, "proof_for_another_url"),
    "a list of urls": ({"htu": [URL]}, "proof_for_another_url"),
    "a trailing slash": ({"htu": URL + "/"}, "proof_for_another_url"),
    "another token's hash": ({"ath": "A" * 43}, "proof_for_another_token"),
    "no token hash": ({"ath": ...}, "proof_for_another_token"),
    "61 seconds old": ({"iat": -61}, "proof_not_made_now"),
    "61 seconds ahead": ({"iat": 61}, "proof_not_made_now"),
    "no time": ({"iat": ...}, "proof_time_invalid"),
    "a float for a time": ({"iat": 0.5}, "proof_time_invalid"),
    "true for a time": ({"iat": True}, "proof_time_invalid"),
    "no id": ({"jti": ...}, "proof_jti_invalid"),
    "an empty id": ({"jti": ""}, "proof_jti_invalid"),
    "a huge id": ({"jti": "j" * 256}, "proof_jti_invalid"),
    "an id of another type": ({"jti": 7}, "proof_jti_invalid"),
    "type of an access token": ({"header": {"typ": "at+jwt"}}, "not_a_proof"),
    "no type": ({"header": {"typ": ...}}, "not_a_proof"),
    "no key": ({"header": {"jwk": ...}}, "proof_header_has_more"),
    "a critical extension": ({"header": {"crit": ["exp"]}}, "proof_header_has_more"),
    "a key elsewhere": ({"header": {"jku": "https://evil.example/k"}}, "proof_header_has_more"),
    "another key in the header": (
        {"header": {"jwk": OTHER.as_dict(private=False)}},
        "proof_signature_invalid",
    ),
    "another key altogether": ({"key": OTHER}, "proof_by_another_key"),
    "a private key": ({"header": {"jwk": OTHER.as_dict(private=True)}}, "proof_key_not_public"),
    "a shared secret": ({"header": {"jwk": {"kty": "oct", "k": "AAAA"}}}, "proof_key_not_public"),
    "a key that is none": ({"header": {"jwk": {"kty": "EC"}}}, "proof_key_invalid"),
    "text for a key": ({"header": {"jwk": "key"}}, "proof_key_not_public"),
    "no algorithm at all": ({"header": {"alg": "none"}}, "proof_algorithm_not_allowed"),
    "an algorithm with a secret": ({"header": {"alg": "HS256"}}, "proof_algorithm_not_allowed"),
    "an algorithm of another key": ({"header": {"alg": "RS256"}}, "proof_key_invalid"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_a_tampered_proof_is_refused(
    refusal: Refusal, bound: str, prover: ProofMaker, send: Any, name: str
) -> None:
    changes, reason = TAMPERINGS[name]
    error = await refusal(send(bound, prover.proof(URL, token=bound, **changes)))
    assert isinstance(error, UnauthenticatedError)
    assert error.reason == reason
    assert error.challenge.startswith('DPoP realm="doorward", error="invalid_dpop_proof"')


async def test_every_refused_proof_looks_the_same(
    refusal: Refusal, bound: str, prover: ProofMaker, send: Any
) -> None:
    errors = [
        await refusal(send(bound, prover.proof(URL, token=bound, **changes)))
        for changes, _ in TAMPERINGS.values()
    ]
    assert len({(error.message, error.hint, error.challenge) for error in errors}) == 1


@pytest.mark.parametrize(
    "proof", ["", "x", "a.b.c", "e30.e30.e30", "é.é.é", "x" * 5000, "[" * 100, "..", "AAAA.AAAA."]
)
async def test_what_is_no_proof_is_refused(refusal: Refusal, bound: str, send: Any, proof: str) -> None:
    assert isinstance(await refusal(send(bound, proof)), UnauthenticatedError)


async def test_a_proof_works_once(
    gate: Authenticator, refusal: Refusal, bound: str, prover: ProofMaker, send: Any
) -> None:
    proof = prover.proof(URL, token=bound)
    assert await gate.authenticate(send(bound, proof))
    assert (await refusal(send(bound, proof))).reason == "proof_replayed"
    # Another proof with the same id by the same key is a replay too; another key's id is its own.
    again = prover.proof(URL, token=bound, jti="same")
    assert await gate.authenticate(send(bound, again))
    assert (await refusal(send(bound, prover.proof(URL, token=bound, jti="same")))).reason == "proof_replayed"


async def test_one_client_cannot_use_up_anothers_proof_ids(
    gate: Authenticator, idp: Any, clock: ManualClock, prover: ProofMaker, bound: str, send: Any
) -> None:
    other = ProofMaker(clock)
    token = idp.token(cnf={"jkt": other.thumbprint})
    assert await gate.authenticate(send(token, other.proof(URL, token=token, jti="j")))
    assert await gate.authenticate(send(bound, prover.proof(URL, token=bound, jti="j")))


async def test_a_refused_proof_spends_nothing(
    gate: Authenticator, refusal: Refusal, bound: str, prover: ProofMaker, send: Any
) -> None:
    await refusal(send(bound, prover.proof(URL, token=bound, jti="j", htm="POST")))
    assert await gate.authenticate(send(bound, prover.proof(URL, token=bound, jti="j")))


async def test_a_bound_token_sent_as_a_plain_one_is_refused_and_asks_for_a_proof(
    refusal: Refusal, bound: str, send: Any
) -> None:
    error = await refusal(send(bound, None, scheme="Bearer"))
    assert error.reason == "bound_token_without_proof"
    assert error.challenge.startswith('DPoP realm="doorward", error="invalid_token"')


async def test_the_cache_never_lets_a_bound_token_in_without_a_fresh_proof(
    gate: Authenticator, refusal: Refusal, bound: str, prover: ProofMaker, send: Any
) -> None:
    proof = prover.proof(URL, token=bound)
    assert await gate.authenticate(send(bound, proof))
    assert (await refusal(send(bound, None, scheme="Bearer"))).reason == "bound_token_without_proof"
    assert (await refusal(send(bound, proof))).reason == "proof_replayed"
    assert await gate.authenticate(send(bound, prover.proof(URL, token=bound)))


async def test_a_token_that_is_not_bound_gains_nothing_from_a_proof(
    refusal: Refusal, idp: Any, prover: ProofMaker, send: Any
) -> None:
    token = idp.token()
    assert (await refusal(send(token, prover.proof(URL, token=token)))).reason == "token_not_bound"


async def test_a_proof_beside_anything_but_a_bound_token_is_ambiguous(
    refusal: Refusal, idp: Any, prover: ProofMaker, ask: Any
) -> None:
    proof = prover.proof(URL, token="x")
    for headers in (
        (("authorization", f"Bearer {idp.token()}"), ("dpop", proof)),
        (("x-api-key", "dw_x"), ("dpop", proof)),
        (("dpop", proof),),
        (("authorization", "DPoP a.b.c"), ("dpop", proof), ("dpop", proof)),
        (("authorization", "DPoP a.b.c"), ("dpop", f"{proof}, {proof}")),
    ):
        assert isinstance(await refusal(ask(*headers)), InvalidRequestError)


async def test_the_scheme_without_a_proof_asks_for_one(refusal: Refusal, bound: str, send: Any) -> None:
    error = await refusal(send(bound, None))
    assert (error.reason, 'error="invalid_dpop_proof"' in error.challenge) == ("proof_missing", True)


async def test_a_token_bound_to_a_certificate_and_a_key_needs_both(
    gate: Authenticator, refusal: Refusal, registry: Any, idp: Any, prover: ProofMaker, send: Any
) -> None:
    digest = hashlib.sha256(b"der").digest()
    registry.certificates[digest.hex()] = next(d for d in registry.active if d.id == "laptop-7")
    thumbprint = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    token = idp.token(cnf={"jkt": prover.thumbprint, "x5t#S256": thumbprint})
    proof = prover.proof(URL, token=token)
    assert (await refusal(send(token, proof))).reason == "bound_to_a_certificate_not_shown"
    assert await gate.authenticate(send(token, proof, certificate=b"der"))


@pytest.mark.parametrize("query", ["?x=1", "#f", "?a#b"])
async def test_query_and_fragment_of_the_url_do_not_count(
    gate: Authenticator, bound: str, prover: ProofMaker, send: Any, query: str
) -> None:
    assert await gate.authenticate(send(bound, prover.proof(URL + query, token=bound)))


async def test_replays_cannot_be_told_means_refused_for_now(
    make_gate: Callable[..., Authenticator], clock: ManualClock, bound: str, prover: ProofMaker, send: Any
) -> None:
    gate = make_gate(one_time=MemoryOneTime(clock, capacity=0))
    with pytest.raises(UnavailableError):
        await gate.authenticate(send(bound, prover.proof(URL, token=bound)))


# Nonces


@pytest.fixture
def demanding(make_gate: Callable[..., Authenticator], clock: ManualClock) -> Authenticator:
    return make_gate(nonces=Nonces(b"k" * 32, clock))


async def test_a_nonce_is_asked_for_and_then_accepted(
    demanding: Authenticator, refusal: Refusal, bound: str, prover: ProofMaker, send: Any
) -> None:
    error = await refusal(send(bound, prover.proof(URL, token=bound)), demanding)
    assert 'error="use_dpop_nonce"' in error.challenge
    nonce = dict(error.headers)["DPoP-Nonce"]
    assert await demanding.authenticate(send(bound, prover.proof(URL, token=bound, nonce=nonce)))


async def test_a_stale_forged_or_foreign_nonce_is_refused_with_a_new_one(
    demanding: Authenticator, refusal: Refusal, bound: str, prover: ProofMaker, send: Any, clock: ManualClock
) -> None:
    mine = Nonces(b"k" * 32, clock).fresh()
    foreign = Nonces(b"x" * 32, clock).fresh()
    clock.advance(LIFETIME)
    for nonce in (mine, foreign, "", "x", 7, None, mine[:-1], mine + "A", "é", "%%%%"):
        error = await refusal(send(bound, prover.proof(URL, token=bound, nonce=nonce)), demanding)
        assert error.reason == "proof_nonce_wanted"
        assert dict(error.headers)["DPoP-Nonce"]


def test_gateways_of_one_data_directory_share_the_nonce_key(tmp_path: Any, clock: ManualClock) -> None:
    one, other = shared_key(tmp_path), shared_key(tmp_path)
    assert one == other
    assert Nonces(other, clock).holds(Nonces(one, clock).fresh())
    assert (tmp_path / "dpop-nonce.key").stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 1


# The gateway's own addresses


@pytest.mark.parametrize(
    ("url", "path", "ours"),
    [
        ("https://GATE.example:443/a", "/a", True),
        ("HTTPS://gate.example/a", "/a", True),
        ("https://gate.example", "/", True),
        ("https://gate.example/%61%2fb", "/a%2Fb", True),
        ("https://gate.example/a%2Fb", "/a/b", False),
        ("https://gate.example./a", "/a", False),
        ("https://gate.example:99999/a", "/a", False),
        ("https://gate.example/a\n", "/a", False),
        ("ftp://gate.example/a", "/a", False),
        ("https:gate.example/a", "/a", False),
        ("", "/", False),
        ("http://localhost:8640/a", "/a", True),
        ("http://[::1]:8640/a", "/a", True),
        ("http://127.0.0.2:8640/a", "/a", False),
        ("https://localhost:8640/a", "/a", False),
    ],
)
def test_a_url_is_ours_in_any_of_its_spellings_and_no_other_is(url: str, path: str, ours: bool) -> None:
    own = OwnAddresses([GATE, "http://127.0.0.1:8640", "urn:not-a-url"])
    assert own.is_request(url, raw_path=path) is ours


def test_the_proof_maker_of_these_tests_follows_the_standard(prover: ProofMaker) -> None:
    head, body, signature = prover.proof(URL, token="t").split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert JWSRegistry.algorithms["ES256"].verify(f"{head}.{body}".encode(), raw, prover.key)
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert claims["ath"] == base64.urlsafe_b64encode(hashlib.sha256(b"t").digest()).rstrip(b"=").decode()
