"""SPIFFE workloads: X.509-SVIDs and JWT-SVIDs, good ones and every tampering by name."""

# ruff: noqa: PLR0913, PLR0917, E501 -- fixtures are arguments; a table reads better in one line each
from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc.jwk import ECKey, OKPKey

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError, InvalidRequestError, UnauthenticatedError
from doorward.core.identity import Method
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import Peer
from doorward.identity.authenticate import Authenticator
from doorward.identity.spiffe import read_id
from doorward.identity.strict_jose import TokenFaultError
from doorward.settings import SpiffeSettings
from support.workloads import Authority, Domain, key_usage

GATE = "https://gate.example"
ETL = EntityUid.of("Service", "etl")
ID = "spiffe://corp.example/ns/prod/sa/etl"
Refusal = Callable[..., Any]


@pytest.fixture
def domain(clock: ManualClock, tmp_path: Path) -> Domain:
    return Domain("corp.example", clock.now(), tmp_path)


@pytest.fixture
def other(clock: ManualClock, tmp_path: Path) -> Domain:
    return Domain("other.example", clock.now(), tmp_path)


@pytest.fixture
def door(registry: Any, clock: ManualClock, domain: Domain, other: Domain) -> Authenticator:
    registry.active.add(ETL)
    registry.links["spiffe://corp.example", "/ns/prod/sa/etl"] = ETL
    registry.links["spiffe://other.example", "/ns/prod/sa/etl"] = EntityUid.of("User", "omar")
    spiffe = [SpiffeSettings(trust_domain=one.name, bundle=one.file) for one in (domain, other)]
    return Authenticator(
        registry.snapshot, [], dict, clock, GATE, one_time=MemoryOneTime(clock), spiffe=spiffe
    )


@pytest.fixture
def shown(ask: Callable[..., Any]) -> Callable[..., Any]:
    def make(certificate: bytes, *between: Authority, headers: tuple[tuple[str, str], ...] = ()) -> Any:
        chain = (certificate, *(one.der for one in between))
        asked = ask(*headers, certificate=certificate)
        return type(asked)(
            **{name: getattr(asked, name) for name in asked.__struct_fields__ if name != "peer"},
            peer=Peer("127.0.0.1", tls=True, certificate=certificate, chain=chain),
        )

    return make


async def test_a_workload_is_let_in_by_its_certificate(
    door: Authenticator, domain: Domain, shown: Any, registry: Any
) -> None:
    caller = await door.authenticate(shown(domain.authority.svid(ID)))
    assert (caller.principal, caller.method, caller.issuer) == (ETL, Method.SVID, "spiffe://corp.example")
    assert caller.expires is not None
    assert caller.device is None
    assert door.still_valid(caller)
    registry.links.clear()
    assert not door.still_valid(caller)


async def test_a_chain_through_an_intermediate_holds_and_dns_names_beside_the_id_do_no_harm(
    door: Authenticator, domain: Domain, shown: Any, clock: ManualClock
) -> None:
    between = Authority("between", clock.now(), above=domain.authority)
    svid = between.svid(ID, dns=("etl.internal",))
    assert (await door.authenticate(shown(svid, between))).principal == ETL


CERTIFICATES: dict[str, tuple[Callable[[Domain, Domain], bytes], str]] = {
    "two names": (lambda d, _: d.authority.svid(ID, ID + "2"), "svid_has_not_one_uri"),
    "another scheme beside it": (lambda d, _: d.authority.svid(ID, "https://x.example"), "svid_has_not_one_uri"),
    "no path": (lambda d, _: d.authority.svid("spiffe://corp.example"), "spiffe_id_invalid"),
    "a slash for a path": (lambda d, _: d.authority.svid("spiffe://corp.example/"), "spiffe_id_invalid"),
    "a slash at the end": (lambda d, _: d.authority.svid(ID + "/"), "spiffe_id_invalid"),
    "dots in the path": (lambda d, _: d.authority.svid("spiffe://corp.example/a/../etl"), "spiffe_id_invalid"),
    "an escape in the path": (lambda d, _: d.authority.svid(ID + "%2e"), "spiffe_id_invalid"),
    "a query": (lambda d, _: d.authority.svid(ID + "?x=1"), "spiffe_id_invalid"),
    "a port": (lambda d, _: d.authority.svid("spiffe://corp.example:1/etl"), "spiffe_id_invalid"),
    "a user": (lambda d, _: d.authority.svid("spiffe://u@corp.example/etl"), "spiffe_id_invalid"),
    "capitals in the domain": (lambda d, _: d.authority.svid("spiffe://Corp.example/etl"), "spiffe_id_invalid"),
    "an unknown domain": (lambda d, _: d.authority.svid("spiffe://third.example/etl"), "trust_domain_unknown"),
    "another domain's authority": (lambda _, o: o.authority.svid(ID), "svid_chain_invalid"),
    "an authority nobody knows": (
        lambda d, _: Authority("corp.example root", d.now).svid(ID), "svid_chain_invalid",
    ),
    "an authority itself": (lambda d, _: d.authority.svid(ID, ca=True), "svid_is_an_authority"),
    "it may sign certificates": (
        lambda d, _: d.authority.svid(ID, usage=key_usage(signs=True)), "svid_key_usage_wrong",
    ),
    "it may sign revocations": (
        lambda d, _: d.authority.svid(ID, usage=key_usage(signs=False, crl=True)), "svid_key_usage_wrong",
    ),
    "it may not sign at all": (
        lambda d, _: d.authority.svid(ID, usage=key_usage(signs=False, digital=False)), "svid_key_usage_wrong",
    ),
    "key usage not critical": (
        lambda d, _: d.authority.svid(ID, critical_usage=False), "svid_key_usage_wrong",
    ),
    "no key usage": (lambda d, _: d.authority.svid(ID, without_usage=True), "svid_key_usage_wrong"),
    "for servers only": (
        lambda d, _: d.authority.svid(ID, uses=(ExtendedKeyUsageOID.SERVER_AUTH,)), "svid_key_usage_wrong",
    ),
    "expired": (lambda d, _: d.authority.svid(ID, ends=timedelta(seconds=-1)), "svid_chain_invalid"),
    "not yet": (lambda d, _: d.authority.svid(ID, begins=timedelta(minutes=5)), "svid_chain_invalid"),
    "a workload nobody linked": (lambda d, _: d.authority.svid(ID + "2"), "workload_not_linked"),
    "a path in other letters": (
        lambda d, _: d.authority.svid("spiffe://corp.example/ns/prod/sa/ETL"), "workload_not_linked",
    ),
    "linked to a person": (
        lambda _, o: o.authority.svid("spiffe://other.example/ns/prod/sa/etl"), "workload_not_linked",
    ),
    "no certificate": (lambda _d, _o: b"spiffe://", "svid_unreadable"),
}  # fmt: skip


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_a_certificate_that_is_no_svid_of_ours_is_refused(
    door: Authenticator, refusal: Refusal, domain: Domain, other: Domain, shown: Any, name: str
) -> None:
    made, reason = CERTIFICATES[name]
    error = await refusal(shown(made(domain, other)), door)
    assert isinstance(error, UnauthenticatedError)
    assert error.reason == reason


async def test_a_certificate_without_an_id_is_judged_as_a_devices(
    door: Authenticator, refusal: Refusal, domain: Domain, shown: Any
) -> None:
    error = await refusal(shown(domain.authority.svid(dns=("etl.internal",))), door)
    assert error.reason == "certificate_unknown_or_revoked"


async def test_a_certificate_ends_at_its_end_and_with_its_authority(
    door: Authenticator, refusal: Refusal, domain: Domain, shown: Any, clock: ManualClock
) -> None:
    svid = domain.authority.svid(ID)
    assert await door.authenticate(shown(svid))
    new = Authority("corp.example new root", clock.now())
    domain.write(authorities=[new])
    os.utime(domain.file, ns=(1, 1))
    clock.advance(1)
    assert (await refusal(shown(svid), door)).reason == "svid_chain_invalid"
    assert await door.authenticate(shown(new.svid(ID)))
    clock.advance(3600)
    assert (await refusal(shown(new.svid(ID)), door)).reason == "svid_chain_invalid"


async def test_a_broken_bundle_leaves_the_last_good_one(
    door: Authenticator, domain: Domain, shown: Any, clock: ManualClock
) -> None:
    for content in (b"", b"{", b'{"keys":[]}', b"-----BEGIN CERTIFICATE-----", b"x" * 2_000_000):
        domain.file.write_bytes(content)
        clock.advance(1)
        assert await door.authenticate(shown(domain.authority.svid(ID)))
    domain.file.unlink()
    clock.advance(1)
    assert await door.authenticate(shown(domain.authority.svid(ID)))


def test_a_bundle_that_cannot_be_used_does_not_start(
    tmp_path: Path, clock: ManualClock, registry: Any
) -> None:
    file = tmp_path / "b.json"
    for content in (None, b"", b'{"keys":[{"use":"x509-svid","x5c":["AAAA"]}]}'):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(InvalidConfigError):
            Authenticator(
                registry.snapshot, [], dict, clock, GATE, one_time=MemoryOneTime(clock),
                spiffe=[SpiffeSettings(trust_domain="corp.example", bundle=file)],
            )  # fmt: skip


async def test_authorities_in_pem_will_do(
    registry: Any, clock: ManualClock, domain: Domain, tmp_path: Path, shown: Any
) -> None:
    registry.active.add(ETL)
    registry.links["spiffe://corp.example", "/ns/prod/sa/etl"] = ETL
    file = tmp_path / "authorities.pem"
    file.write_bytes(domain.authority.certificate.public_bytes(Encoding.PEM))
    door = Authenticator(
        registry.snapshot, [], dict, clock, GATE, one_time=MemoryOneTime(clock),
        spiffe=[SpiffeSettings(trust_domain="corp.example", bundle=file)],
    )  # fmt: skip
    assert (await door.authenticate(shown(domain.authority.svid(ID)))).principal == ETL


# JWT-SVID


async def test_a_workload_is_let_in_by_its_token(door: Authenticator, domain: Domain, bearer: Any) -> None:
    caller = await door.authenticate(bearer(domain.token("/ns/prod/sa/etl")))
    assert (caller.principal, caller.method, caller.subject) == (ETL, Method.SVID, "/ns/prod/sa/etl")
    assert door.still_valid(caller)


@pytest.mark.parametrize("typ", ["JWT", "JOSE", ...])
async def test_the_standards_types_of_a_token_are_taken(
    door: Authenticator, domain: Domain, bearer: Any, typ: Any
) -> None:
    token = domain.token("/ns/prod/sa/etl", header={"typ": typ})
    assert (await door.authenticate(bearer(token))).principal == ETL


PATH = "/ns/prod/sa/etl"
TOKENS: dict[str, tuple[Callable[[Domain, Domain], str], str]] = {
    "another audience": (lambda d, _: d.token(PATH, aud=["https://x.example"]), "audience_wrong"),
    "several audiences": (lambda d, _: d.token(PATH, aud=[GATE, "x"]), "audience_wrong"),
    "no audience": (lambda d, _: d.token(PATH, aud=...), "audience_wrong"),
    "expired": (lambda d, _: d.token(PATH, exp=1), "token_expired"),
    "no end": (lambda d, _: d.token(PATH, exp=...), "exp_invalid"),
    "a text for an end": (lambda d, _: d.token(PATH, exp="9999999999"), "exp_invalid"),
    "not yet": (lambda d, _: d.token(PATH, nbf=9_999_999_999), "not_yet_valid"),
    "another type": (lambda d, _: d.token(PATH, header={"typ": "at+jwt"}), "issuer_unknown"),
    "an id token's type": (lambda d, _: d.token(PATH, header={"typ": "id+jwt"}), "not_an_access_token"),
    "no key id": (lambda d, _: d.token(PATH, header={"kid": ...}), "key_id_invalid"),
    "an unknown key id": (lambda d, _: d.token(PATH, header={"kid": "x"}), "signing_key_unknown"),
    "a key of its own": (
        lambda d, _: d.token(PATH, header={"jwk": d.key.as_dict(private=False)}), "svid_header_has_more",
    ),
    "a critical extension": (lambda d, _: d.token(PATH, header={"crit": ["x"]}), "svid_header_has_more"),
    "another key": (lambda d, _: d.token(PATH, key=ECKey.generate_key("P-256")), "signature_invalid"),
    "another domain's key": (lambda d, o: d.token(PATH, key=o.key), "signature_invalid"),
    "EdDSA, which SVIDs do not use": (
        lambda d, _: d.token(PATH, key=OKPKey.generate_key("Ed25519"), alg="EdDSA"), "algorithm_not_allowed",
    ),
    "no algorithm": (lambda d, _: d.token(PATH, header={"alg": "none"}), "algorithm_not_allowed"),
    "an unknown domain": (lambda d, _: d.token(PATH, sub="spiffe://third.example/a"), "trust_domain_unknown"),
    "no path": (lambda d, _: d.token("", sub="spiffe://corp.example"), "spiffe_id_invalid"),
    "dots in the path": (lambda d, _: d.token("/a/./b"), "spiffe_id_invalid"),
    "a workload nobody linked": (lambda d, _: d.token("/ns/prod/sa/x"), "identity_not_linked"),
    "linked to a person": (lambda _, o: o.token(PATH), "workload_linked_to_a_person"),
    "a subject that is no workload": (lambda d, _: d.token(PATH, sub="00u1"), "not_an_access_token"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
async def test_a_token_that_is_no_svid_of_ours_is_refused(
    door: Authenticator, refusal: Refusal, domain: Domain, other: Domain, bearer: Any, name: str
) -> None:
    made, reason = TOKENS[name]
    error = await refusal(bearer(made(domain, other)), door)
    assert isinstance(error, UnauthenticatedError)
    assert error.reason == reason


async def test_a_token_ends_with_its_key_although_it_was_remembered(
    door: Authenticator, refusal: Refusal, domain: Domain, bearer: Any, clock: ManualClock
) -> None:
    token = domain.token(PATH)
    assert await door.authenticate(bearer(token))
    domain.write(keys=[("token-2", ECKey.generate_key("P-256"))])
    os.utime(domain.file, ns=(1, 1))
    clock.advance(1)
    assert (await refusal(bearer(token), door)).reason == "signing_key_unknown"


async def test_without_a_trust_domain_no_workload_is_known(
    refusal: Refusal, domain: Domain, bearer: Any, shown: Any
) -> None:
    assert (await refusal(bearer(domain.token(PATH)))).reason == "not_an_access_token"
    assert (await refusal(shown(domain.authority.svid(ID)))).reason == "certificate_unknown_or_revoked"


# Both at once


async def test_a_credential_beside_a_workloads_certificate_must_mean_the_same_workload(
    door: Authenticator, refusal: Refusal, domain: Domain, shown: Any, registry: Any
) -> None:
    svid = domain.authority.svid(ID)
    same = (("authorization", f"Bearer {domain.token(PATH)}"),)
    assert (await door.authenticate(shown(svid, headers=same))).principal == ETL
    registry.links["spiffe://corp.example", "/ns/prod/sa/two"] = EntityUid.of("Service", "two")
    registry.active.add(EntityUid.of("Service", "two"))
    two = (("authorization", f"Bearer {domain.token('/ns/prod/sa/two')}"),)
    assert isinstance(await refusal(shown(svid, headers=two), door), InvalidRequestError)


@pytest.mark.parametrize("text", ["spiffe://a/b", "spiffe://a.b-c_d/E/f.g", "spiffe://a/" + "b" * 2000])
def test_an_id_is_read(text: str) -> None:
    found = read_id(text)
    assert found.issuer + found.path == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///b",
        "SPIFFE://a/b",
        "spiffe://a/b\n",
        "spiffe://a/é",
        "spiffe://a/" + "b" * 2048,
    ],
)
def test_what_is_no_id_is_not_read(text: str) -> None:
    with pytest.raises(TokenFaultError):
        read_id(text)
