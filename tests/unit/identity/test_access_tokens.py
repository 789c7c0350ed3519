"""Attacks 1-12, 16-19 of the catalogue against access tokens; RFC 9068, RFC 8725."""

# ruff: noqa: PLR0913, PLR0917, RUF001 -- fixtures are arguments; look-alike letters are attacks
from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError, UnauthenticatedError
from doorward.core.identity import Method
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import Request
from doorward.identity import strict_jose
from doorward.identity.authenticate import Authenticator
from doorward.settings import IssuerSettings

DANA = EntityUid.of("User", "dana")
GATE = "https://gate.example"
IDP = "https://idp.example"
Ask = Callable[..., Request]
Refusal = Callable[..., Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def test_a_linked_identity_is_let_in(gate: Authenticator, bearer: Ask, idp: Any) -> None:
    caller = await gate.authenticate(bearer(idp.token(jti="j1")))
    assert (caller.principal, caller.credential, caller.method) == (DANA, "j1", Method.TOKEN)
    assert (caller.issuer, caller.subject) == (IDP, "00u1")
    assert (caller.device_proven, caller.minted, caller.mfa_at, caller.acr) == (False, False, None, "")
    assert gate.still_valid(caller)


@pytest.mark.parametrize(
    ("key", "alg"), [("rsa", "RS256"), ("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")]
)
async def test_every_default_algorithm_verifies(
    gate: Authenticator, bearer: Ask, idp: Any, key: str, alg: str
) -> None:
    assert (await gate.authenticate(bearer(idp.token(key=key, alg=alg)))).principal == DANA


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT"])
async def test_the_type_is_an_access_tokens(gate: Authenticator, bearer: Ask, idp: Any, typ: str) -> None:
    assert (await gate.authenticate(bearer(idp.token(header={"typ": typ})))).principal == DANA


async def test_every_refused_token_looks_the_same(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    tokens = [
        idp.token(exp=1),
        idp.token(aud="other"),
        idp.token(key="ec-other"),
        "opaque",
        "a.b.c",
        "x" * 20_000,
    ]
    errors = [await refusal(bearer(token)) for token in tokens]
    assert len({(e.message, e.hint, e.challenge) for e in errors}) == 1
    assert len({e.reason for e in errors}) == len(errors)
    assert all('error="invalid_token"' in e.challenge for e in errors)


# 1, 2, 3: the algorithm


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "es256", "ES256K"])
@pytest.mark.parametrize("signature", ["", "AA", "own"])
async def test_an_algorithm_outside_the_list_is_refused(
    bearer: Ask, idp: Any, refusal: Refusal, alg: str, signature: str
) -> None:
    head, body, own = idp.token(header={"alg": alg}).split(".")
    token = f"{head}.{body}.{own if signature == 'own' else signature}"
    assert isinstance(await refusal(bearer(token)), UnauthenticatedError)


@pytest.mark.parametrize("encoding", ["pem", "der", "jwk"])
async def test_a_public_key_is_never_a_shared_secret(
    bearer: Ask, idp: Any, refusal: Refusal, encoding: str
) -> None:
    public = idp.public("rsa")
    key = RSAKey.import_key(public)
    secret = json.dumps(public).encode() if encoding == "jwk" else key.as_bytes(encoding=encoding.upper())
    for kid in ("rsa", ...):
        head = {"alg": "HS256", "typ": "at+jwt", "kid": kid}
        signed = ".".join(
            b64(json.dumps(part).encode())
            for part in ({k: v for k, v in head.items() if v is not ...}, idp.claims())
        )
        token = f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"
        assert (await refusal(bearer(token))).reason == "algorithm_not_allowed"


@pytest.mark.parametrize(
    ("published", "key", "alg", "named"),
    [
        ({"alg": "PS256"}, "rsa", "RS256", "RS256"),  # the key is for another algorithm
        ({"alg": "RSA-OAEP"}, "rsa", "RS256", "RS256"),
        ({}, "rsa", "RS256", "PS256"),  # the header names another than was used
        ({}, "ec", "ES256", "RS256"),  # another family than the key's
        ({}, "ec", "ES256", "EdDSA"),
        ({"use": "enc"}, "ec", "ES256", "ES256"),
        ({"use": 7}, "ec", "ES256", "ES256"),
        ({"key_ops": ["sign"]}, "ec", "ES256", "ES256"),
        ({"key_ops": []}, "ec", "ES256", "ES256"),
        ({"key_ops": "verify"}, "ec", "ES256", "ES256"),
        ({"alg": ["ES256"]}, "ec", "ES256", "ES256"),
        ({"d": "AAAA"}, "ec", "ES256", "ES256"),  # published with its private half
        ({"kty": "oct", "k": "AAAA"}, "ec", "ES256", "ES256"),
        ({"kty": ["EC"]}, "ec", "ES256", "ES256"),
        ({"x": "AAAA"}, "ec", "ES256", "ES256"),  # not on the curve
    ],
)
async def test_a_key_that_is_not_for_this_is_not_used(
    bearer: Ask, idp: Any, refusal: Refusal, published: dict[str, Any], key: str, alg: str, named: str
) -> None:
    idp.published = [idp.public(key, **published), idp.public("ed", kid="other")]
    good = idp.token(key=key, alg=alg)
    token = good
    if named != alg:
        head = b64(json.dumps({"alg": named, "typ": "at+jwt", "kid": key}).encode())
        token = ".".join((head, *good.split(".")[1:]))
    assert isinstance(await refusal(bearer(token)), UnauthenticatedError)


async def test_key_ops_that_hold_verify_are_fine(gate: Authenticator, bearer: Ask, idp: Any) -> None:
    idp.published = [idp.public("ec", key_ops=["verify"], use=None)]
    assert (await gate.authenticate(bearer(idp.token()))).principal == DANA


async def test_a_curve_that_does_not_belong_to_the_algorithm_is_refused(
    bearer: Ask, idp: Any, refusal: Refusal, make_gate: Callable[..., Authenticator]
) -> None:
    idp.published = [idp.public("ec-384")]
    gate = make_gate(algorithms=("ES256", "ES384"))
    assert (await gate.authenticate(bearer(idp.token(key="ec-384", alg="ES384")))).principal == DANA
    body = idp.token(key="ec-384", alg="ES384").split(".")
    head = b64(json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": "ec-384"}).encode())
    assert isinstance(await refusal(bearer(".".join((head, *body[1:]))), gate), UnauthenticatedError)


async def test_a_signature_made_with_the_wrong_curve_is_refused_although_it_holds(
    bearer: Ask, idp: Any, refusal: Refusal
) -> None:
    idp.published = [idp.public("ec-384")]
    error = await refusal(bearer(idp.token(key="ec-384", alg="ES256")))
    assert error.reason == "signing_key_unknown"


async def test_a_weak_rsa_key_is_not_used_even_if_the_issuer_publishes_it(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal
) -> None:
    idp.published = [idp.public("rsa-1024"), idp.public("rsa")]
    assert (await gate.authenticate(bearer(idp.token(key="rsa", alg="RS256")))).principal == DANA
    assert (await refusal(bearer(idp.token(key="rsa-1024", alg="RS256")))).reason == "signing_key_unknown"


async def test_an_issuer_may_use_only_its_own_algorithms(
    bearer: Ask, idp: Any, refusal: Refusal, make_gate: Callable[..., Authenticator]
) -> None:
    error = await refusal(bearer(idp.token()), make_gate(algorithms=("RS256",)))
    assert error.reason == "algorithm_not_allowed"


@pytest.mark.parametrize("algorithms", [("none",), ("HS256",), ("RS256", "HS256"), ()])
def test_an_algorithm_that_must_not_be_trusted_is_a_configuration_error(
    make_gate: Callable[..., Authenticator], algorithms: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidConfigError):
        make_gate(algorithms=algorithms)


# 4, 5, 7: headers that bring their own


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/c"},
        {"x5c": ["AAAA"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A128GCM"},
    ],
)
async def test_a_header_that_brings_its_own_is_refused_before_anything_is_fetched(
    bearer: Ask, idp: Any, refusal: Refusal, extra: dict[str, Any]
) -> None:
    error = await refusal(bearer(idp.token(header=extra)))
    assert error.reason.startswith("header_has_")
    assert idp.asked == []


async def test_a_key_embedded_in_the_token_never_verifies_it(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    error = await refusal(
        bearer(idp.token(key="ec-other", header={"jwk": idp.public("ec-other"), "kid": ...}))
    )
    assert error.reason == "header_has_jwk"


# 6: kid


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "' OR 1=1 --", "k" * 10_000, "\x00\n", "", 7, ["ec"], {"a": 1}, None, "\ud800"]
)
async def test_a_key_id_is_only_ever_compared(bearer: Ask, idp: Any, refusal: Refusal, kid: Any) -> None:
    error = await refusal(bearer(idp.token(header={"kid": kid})))
    # Without an id the one key that fits is used; every other value finds nothing.
    assert isinstance(error, UnauthenticatedError)
    assert all(url.startswith(IDP) and "null" not in url for url in idp.asked)


@pytest.fixture(autouse=True)
def _several_ec_keys(idp: Any) -> None:
    idp.published.append(idp.public("ec-other", kid="ec-2"))


async def test_a_token_without_key_id_must_leave_no_choice(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal
) -> None:
    assert (await refusal(bearer(idp.token(header={"kid": ...})))).reason == "signing_key_unknown"
    assert (await gate.authenticate(bearer(idp.token(key="ed", alg="EdDSA", header={"kid": ...})))).principal


async def test_two_keys_with_one_id_leave_no_choice_either(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    idp.published = [idp.public("ec"), idp.public("ec-other", kid="ec")]
    assert (await refusal(bearer(idp.token()))).reason == "signing_key_unknown"


# 8: one strict form


def padded(token: str) -> list[str]:
    head, body, signature = token.split(".")
    return [
        f"{head}.{body}.{signature}=",
        f"{head}.{body}.{signature}==",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature[:-1]}+" if "+" not in signature else token,
        f"{head}.{body}. {signature}",
        f"{head}.{body}.{signature}.",
        f"{head}.{body}",
        f".{head}.{body}.{signature}",
        f"{head}..{signature}",
        f"{head}.{body}.{signature}\n",
    ]


async def test_base64_has_one_form_only(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    for token in padded(idp.token()):
        assert isinstance(await refusal(bearer(token)), UnauthenticatedError)


async def test_left_over_bits_in_base64_are_refused(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal
) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = idp.token()  # 64 bytes of signature: 86 characters, the last carries 4 unused bits
    assert (await gate.authenticate(bearer(token))).principal == DANA
    for bits in range(1, 16):
        other = token[:-1] + alphabet[alphabet.index(token[-1]) ^ bits]
        error = await refusal(bearer(other))
        assert error.reason == "token_base64_not_canonical"


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"ES256","alg":"none","typ":"at+jwt","kid":"ec"}',
        b"[]",
        b"null",
        b"{",
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        '{"alg":"ES256"}'.encode("utf-16"),
        b'{"alg":"ES256","typ":"at+jwt","kid":"ec","a":NaN}',
        b"[" * 9000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
    ],
)
async def test_a_header_that_two_readers_could_read_differently_is_refused(
    bearer: Ask, idp: Any, refusal: Refusal, header: bytes
) -> None:
    assert isinstance(await refusal(bearer(idp.token(raw_header=header))), UnauthenticatedError)


async def test_a_claim_that_stands_twice_is_refused(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    body = json.dumps(idp.claims()).encode()
    for double in (b'"sub":"00u1"', b'"\\u0073ub":"root"'):
        token = idp.token(raw_payload=body[:-1] + b"," + double + b"}")
        assert (await refusal(bearer(token))).reason == "token_json_invalid"


@pytest.mark.parametrize("text", ["\x00", "é" * 40, "𝔞.𝔟.𝔠", "a.b", "...", "-", "٣.٣.٣"])
async def test_text_that_is_no_token_is_refused(ask: Ask, refusal: Refusal, text: str) -> None:
    assert isinstance(await refusal(ask(("authorization", f"Bearer {text}"))), UnauthenticatedError)


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_changed_byte_anywhere_is_refused(
    bearer: Ask, idp: Any, refusal: Refusal, place: int
) -> None:
    parts = idp.token().split(".")
    middle = len(parts[place]) // 2
    other = "A" if parts[place][middle] != "A" else "B"
    parts[place] = parts[place][:middle] + other + parts[place][middle + 1 :]
    assert isinstance(await refusal(bearer(".".join(parts))), UnauthenticatedError)


# 9: times


@pytest.mark.parametrize(
    "change",
    [{"exp": ...}, {"exp": -61}, {"exp": None}, {"iat": 61}, {"iat": ...}, {"nbf": 61}, {"nbf": None}],
)
async def test_a_token_outside_its_time_is_refused(
    bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock, change: dict[str, Any]
) -> None:
    now = int(clock.now().timestamp())
    claims = {k: now + v if isinstance(v, int) else v for k, v in change.items()}
    assert isinstance(await refusal(bearer(idp.token(**claims))), UnauthenticatedError)


@pytest.mark.parametrize("change", [{"exp": -60}, {"iat": 60}, {"nbf": 60}])
async def test_a_clock_may_be_a_minute_off(
    gate: Authenticator, bearer: Ask, idp: Any, clock: ManualClock, change: dict[str, int]
) -> None:
    now = int(clock.now().timestamp())
    token = idp.token(**{k: now + v for k, v in change.items()})
    assert (await gate.authenticate(bearer(token))).principal == DANA


@pytest.mark.parametrize(
    "value", [1.8e9, 9e999, -1, True, "1800000000", 10**18, 10**400, [1], {"a": 1}, None, 253_402_300_800]
)
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
async def test_a_time_is_a_whole_number_of_seconds(
    bearer: Ask, idp: Any, refusal: Refusal, claim: str, value: Any
) -> None:
    assert isinstance(await refusal(bearer(idp.token(**{claim: value}))), UnauthenticatedError)


# 10, 11, 12: for whom, by whom, which kind


@pytest.mark.parametrize(
    "audience",
    [
        "https://gate.example/",
        "https://gate.exampl",
        "https://gate.example.evil",
        "HTTPS://gate.example",
        "",
        None,
        ...,
        7,
        [],
        [GATE, "https://other.example"],
        [GATE, GATE],
        ["https://other.example"],
        {"a": GATE},
        [[GATE]],
    ],
)
async def test_a_token_is_for_us_alone(bearer: Ask, idp: Any, refusal: Refusal, audience: Any) -> None:
    assert (await refusal(bearer(idp.token(aud=audience)))).reason == "audience_wrong"


async def test_an_audience_list_of_us_alone_is_the_same_as_us(
    gate: Authenticator, bearer: Ask, idp: Any
) -> None:
    assert (await gate.authenticate(bearer(idp.token(aud=[GATE])))).principal == DANA


@pytest.mark.parametrize(
    "issuer",
    [
        "https://idp.example/",
        "https://idp.example.",
        "HTTPS://IDP.EXAMPLE",
        "https://evil.example",
        "",
        None,
        ...,
        [IDP],
    ],
)
async def test_an_issuer_is_known_to_the_letter_or_not_at_all(
    bearer: Ask, idp: Any, refusal: Refusal, issuer: Any
) -> None:
    assert (await refusal(bearer(idp.token(iss=issuer)))).reason == "issuer_unknown"
    assert idp.asked == []


async def test_one_issuers_key_does_not_sign_for_another(
    bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock, registry: Any
) -> None:
    other = type(idp)("https://other.example", clock)
    other.published = [idp.public("ec-other", kid="ec")]
    registry.links["https://other.example", "00u1"] = EntityUid.of("User", "omar")

    async def fetch(url: str) -> bytes:
        return bytes(await (idp if url.startswith(IDP) else other).fetch(url))

    settings = [IssuerSettings(issuer=name, audience=GATE) for name in (IDP, "https://other.example")]
    gate = Authenticator(
        registry.snapshot, settings, dict, clock, GATE, one_time=MemoryOneTime(clock), fetch=fetch
    )
    # Both publish a key called `ec`; each token verifies only with its own issuer's.
    assert (await gate.authenticate(bearer(idp.token()))).principal == DANA
    assert (await refusal(bearer(idp.token(iss="https://other.example")), gate)).reason == "signature_invalid"
    mine = await gate.authenticate(bearer(idp.token(key="ec-other", header={"kid": "ec"}, iss=other.issuer)))
    assert mine.principal == EntityUid.of("User", "omar")


@pytest.mark.parametrize(
    "typ", ["JWT", "id_token+jwt", "logout+jwt", "dpop+jwt", "at+jwt ", "", None, ..., 7, "ａt+jwt"]
)
async def test_a_token_of_another_kind_is_refused(bearer: Ask, idp: Any, refusal: Refusal, typ: Any) -> None:
    assert (await refusal(bearer(idp.token(header={"typ": typ})))).reason == "not_an_access_token"


@pytest.mark.parametrize("claim", ["sub", "client_id", "jti"])
@pytest.mark.parametrize("value", [..., "", None, 7, ["00u1"], "x" * 256])
async def test_required_claims_are_required(
    bearer: Ask, idp: Any, refusal: Refusal, claim: str, value: Any
) -> None:
    assert (await refusal(bearer(idp.token(**{claim: value})))).reason == f"{claim}_invalid"


@pytest.mark.parametrize("jti", ["a\nb", "a b", "\ud800", "é"])
async def test_a_token_id_that_could_forge_a_record_is_refused(
    bearer: Ask, idp: Any, refusal: Refusal, jti: str
) -> None:
    assert (await refusal(bearer(idp.token(jti=jti)))).reason == "jti_invalid"


# 13, 16, 17: identity, binding, revocation


async def test_identity_is_issuer_and_subject_never_a_name(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    token = idp.token(sub="dana", email="dana@example.com", preferred_username="dana", groups=["admins"])
    error = await refusal(bearer(token))
    assert error.reason == "identity_not_linked"
    assert "not linked" in error.message


async def test_tokens_that_begin_alike_keep_their_own_identity(
    gate: Authenticator, bearer: Ask, idp: Any, registry: Any
) -> None:
    registry.links[IDP, "00u2"] = EntityUid.of("User", "omar")
    one, two = idp.token(sub="00u1", jti="j"), idp.token(sub="00u2", jti="j")
    assert one[:60] == two[:60]
    for _ in range(2):
        assert (await gate.authenticate(bearer(one))).principal == DANA
        assert (await gate.authenticate(bearer(two))).principal == EntityUid.of("User", "omar")


async def test_a_cached_token_with_another_signature_is_not_the_same_token(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal
) -> None:
    token = idp.token()
    await gate.authenticate(bearer(token))
    forged = token.rpartition(".")[0] + "." + idp.token().rpartition(".")[2]
    assert (await refusal(bearer(forged))).reason == "signature_invalid"


async def test_a_delegated_token_is_refused_until_both_can_be_decided(
    bearer: Ask, idp: Any, refusal: Refusal
) -> None:
    assert (await refusal(bearer(idp.token(act={"sub": "agent"})))).reason == "delegation_not_supported"


@pytest.mark.parametrize(
    "cnf",
    [
        {"jkt": "x" * 42},
        {"jkt": 7},
        {"jkt": "x" * 43, "kid": "1"},
        {"jwk": {}},
        {},
        None,
        {"x5t#S256": "x"},
        "x",
        {"kid": "1"},
    ],
)
async def test_a_token_bound_to_a_key_is_refused_as_a_plain_bearer(
    bearer: Ask, idp: Any, refusal: Refusal, cnf: Any
) -> None:
    assert (await refusal(bearer(idp.token(cnf=cnf)))).reason == "bound_to_a_key_not_shown"


async def test_a_token_bound_to_a_certificate_needs_it_on_each_request(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, registry: Any
) -> None:
    digest = hashlib.sha256(b"der").digest()
    registry.certificates[digest.hex()] = EntityUid.of("Device", "laptop-7")
    token = idp.token(cnf={"x5t#S256": b64(digest)})
    caller = await gate.authenticate(bearer(token, certificate=b"der"))
    assert (caller.principal, caller.device_proven) == (DANA, True)
    registry.certificates[hashlib.sha256(b"other").hexdigest()] = EntityUid.of("Device", "laptop-7")
    for shown in (None, b"other"):
        error = await refusal(bearer(token, certificate=shown))
        assert error.reason == "bound_to_a_certificate_not_shown"


@pytest.mark.parametrize("event", ["revoked", "unlinked", "relinked", "disabled"])
async def test_a_verified_token_is_held_against_the_registry_each_time(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, registry: Any, event: str
) -> None:
    token = idp.token(jti="j1")
    caller = await gate.authenticate(bearer(token))
    match event:
        case "revoked":
            registry.revoked.add("j1")
        case "unlinked":
            registry.links.clear()
        case "relinked":
            registry.links[IDP, "00u1"] = EntityUid.of("User", "omar")
        case "disabled":
            registry.active.discard(DANA)
    assert not gate.still_valid(caller)
    if event != "relinked":
        assert isinstance(await refusal(bearer(token)), UnauthenticatedError)


async def test_a_cached_token_ends_when_it_expires(
    gate: Authenticator, bearer: Ask, idp: Any, refusal: Refusal, clock: ManualClock
) -> None:
    token = idp.token()
    caller = await gate.authenticate(bearer(token))
    clock.advance(600 + 59)
    assert gate.still_valid(caller)
    clock.advance(2)
    assert not gate.still_valid(caller)
    assert (await refusal(bearer(token))).reason == "token_expired"


# 19: size


async def test_a_huge_token_is_refused_without_reading_it(
    bearer: Ask, refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_jose, "decode_segment", lambda _: pytest.fail("it was decoded"))
    assert (await refusal(bearer("a.b." + "c" * 1_000_000))).reason == "token_too_long"
    assert (await refusal(bearer("a" * 16 * 1024 + "a"))).reason == "token_too_long"


async def test_many_claims_are_read_but_only_ours_are_used(
    gate: Authenticator, bearer: Ask, idp: Any
) -> None:
    extra = {f"c{n}": "x" for n in range(500)}
    assert (await gate.authenticate(bearer(idp.token(**extra)))).principal == DANA


# How the caller signed in


async def test_mfa_counts_only_from_an_issuer_trusted_for_it(
    bearer: Ask, idp: Any, make_gate: Callable[..., Authenticator], clock: ManualClock
) -> None:
    now = int(clock.now().timestamp())
    token = idp.token(amr=["pwd", "mfa"], acr="aal2", auth_time=now - 100)
    untrusted = await make_gate().authenticate(bearer(token))
    assert (untrusted.mfa_at, untrusted.acr) == (None, "")
    # A sign-in nobody vouches for is the oldest there is.
    assert untrusted.signed_in_at is not None
    assert clock.now() - untrusted.signed_in_at > timedelta(days=20_000)
    when = clock.now() - timedelta(seconds=100)
    for trust, mfa_at, acr in (
        (("amr", "auth_time"), when, ""),
        (("acr", "auth_time"), when, "aal2"),
        (("amr", "acr"), None, "aal2"),
        (("auth_time",), None, ""),
    ):
        caller = await make_gate(trust=trust).authenticate(bearer(token))
        assert (caller.mfa_at, caller.acr) == (mfa_at, acr), trust


@pytest.mark.parametrize("amr", [["pwd"], ["otp"], ["pwd", "otp"], [], ["MFA"], [["mfa"]]])
async def test_only_mfa_says_mfa(
    bearer: Ask, idp: Any, make_gate: Callable[..., Authenticator], clock: ManualClock, amr: list[Any]
) -> None:
    token = idp.token(amr=amr, auth_time=int(clock.now().timestamp()))
    assert (await make_gate(trust=("amr", "auth_time")).authenticate(bearer(token))).mfa_at is None


async def test_a_sign_in_may_be_a_minute_ahead_of_us_and_no_more(
    bearer: Ask, idp: Any, refusal: Refusal, make_gate: Callable[..., Authenticator], clock: ManualClock
) -> None:
    now, gate = int(clock.now().timestamp()), make_gate(trust=("auth_time",))
    assert await gate.authenticate(bearer(idp.token(auth_time=now + 60)))
    assert (await refusal(bearer(idp.token(auth_time=now + 61)), gate)).reason == "auth_time_in_the_future"


@pytest.mark.parametrize("change", [{"amr": "mfa"}, {"acr": 2}, {"auth_time": "now"}, {"auth_time": 2**40}])
async def test_sign_in_claims_of_the_wrong_kind_are_refused(
    bearer: Ask, idp: Any, refusal: Refusal, make_gate: Callable[..., Authenticator], change: dict[str, Any]
) -> None:
    gate = make_gate(trust=("amr", "acr", "auth_time"))
    assert isinstance(await refusal(bearer(idp.token(**change)), gate), UnauthenticatedError)


async def test_another_issuers_word_for_our_own_claims_is_nothing(
    bearer: Ask, idp: Any, make_gate: Callable[..., Authenticator]
) -> None:
    own = {"minted": True, "purpose": "fraud-model", "mfa": True, "device": "laptop-7"}
    caller = await make_gate(test_minting=True).authenticate(bearer(idp.token(doorward=own)))
    assert (caller.minted, caller.bound_purpose, caller.mfa_at, caller.device) == (False, None, None, None)


async def test_no_part_of_a_token_shows_in_an_error(bearer: Ask, idp: Any, refusal: Refusal) -> None:
    token = idp.token(sub="canary-subject", exp=1)
    error = await refusal(bearer(token))
    told = f"{error} {error!r} {error.challenge} {error.reason}"
    assert "canary" not in told
    assert token.rpartition(".")[2] not in told
