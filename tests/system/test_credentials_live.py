"""A whole installation behind TLS: workloads with openssl-made certificates, tokens of a real provider."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doorward.core.clock import SystemClock
from support.installation import Installation, SlowLLM, free_port, wait_until
from support.proofs import ProofMaker
from support.real_provider import ROOT, RealProvider, node, pem

ORG = """
users:
  dana: {{ identities: [{{ issuer: "{issuer}", subject: dana-1 }}] }}
services:
  etl: {{ owner: dana, identities: [{{ issuer: "spiffe://corp.example", subject: "/ns/prod/sa/etl" }}] }}
  notebook: {{ owner: dana, identities: [{{ issuer: "{issuer}", subject: notebook }}] }}
assets:
  Model::"llm/m": {{ owner: dana, sensitivity: 0 }}
"""
POLICY = """
@id("services-look")
permit (principal is Doorward::Service, action == Doorward::Action::"view", resource);
@id("visitors-look")
permit (principal in Doorward::Group::"visitors", action == Doorward::Action::"view", resource);
@id("people-look-with-a-fresh-second-factor")
@stepup("acr=aal2,max_age=900")
permit (principal == Doorward::User::"dana", action == Doorward::Action::"invoke", resource);
@id("people-see-what-they-may-ask")
permit (principal == Doorward::User::"dana", action == Doorward::Action::"view", resource);
@id("house-admins-change")
permit (principal in Doorward::Group::"house-admins", action in [Doorward::Action::"assign"], resource);
"""


EXTRA = {
    "newcomer": {"groups": ["visitors"], "preferred": "nina"},
    "taker": {"groups": ["visitors"], "preferred": "dana"},
    "climber": {"groups": ["house-admins"], "preferred": "carl"},
}


class Openssl:
    """An authority of a trust domain and certificates by it, all made by openssl."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.root = folder / f"{name}-root.pem"
        self.key = folder / f"{name}-root.key"
        extensions = "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.root,
            *(word for extension in extensions for word in ("-addext", extension)),
        )  # fmt: skip

    def svid(self, name: str, uri: str) -> Path:
        """Return a file with a workload's certificate and key."""
        key, request, leaf = (self.folder / f"{name}.{end}" for end in ("key", "csr", "crt"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(
            f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            f"extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=URI:{uri}\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        self._run(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/O=workload", "-keyout", key, "-out", request,
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", request, "-CA", self.root, "-CAkey", self.key, "-CAcreateserial",
            "-days", "1", "-extfile", extensions, "-out", leaf,
        )  # fmt: skip
        pair = self.folder / f"{name}.pem"
        pair.write_bytes(leaf.read_bytes() + key.read_bytes())
        return pair

    def _run(self, *words: Any) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Door:
    """The running installation, and a client for it."""

    def __init__(self, one: Installation, provider: RealProvider, corp: Openssl) -> None:
        self.one, self.provider, self.corp = one, provider, corp

    def get(
        self, path: str = "/llm/v1/models", *, certificate: Path | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        context = ssl.create_default_context(cafile=str(self.one.data / "tls" / "ca.pem"))
        if certificate is not None:
            context.load_cert_chain(certificate)
        request = urllib.request.Request(f"{self.one.url}{path}", headers=headers)  # noqa: S310 -- loopback
        try:
            with urllib.request.urlopen(request, context=context, timeout=20) as answer:  # noqa: S310
                return answer.status, _lower(answer.headers), json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _lower(error.headers), json.loads(error.read() or b"null")


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("openssl")
    corp = Openssl(folder, "corp")
    port = free_port()
    with SlowLLM() as llm, RealProvider(f"https://127.0.0.1:{port}", extra=EXTRA) as provider:
        llm.answer_now()
        client_key = folder / "door.pem"
        client_key.touch(0o600)
        client_key.write_bytes(pem(provider.door_key))
        extra = (
            f'[[spiffe]]\ntrust_domain = "corp.example"\nbundle = "{corp.root}"\n'
            f'[[issuer]]\nissuer = "{provider.issuer}"\naudience = "{provider.gate}"\n'
            'trust = ["acr", "amr", "auth_time"]\nprovision = true\n'
            'map = { groups = "groups", name = "preferred" }\n'
            f'introspection = {{ client_id = "doorward", client_key = "{client_key}", cache = 0.5 }}\n'
            "[identity]\ndpop_nonce = true\n"
        )
        upstreams = f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
        org = ORG.format(issuer=provider.issuer)
        one = Installation(upstreams=upstreams, org=org, policies=POLICY, extra=extra, tls=True)
        with one:
            # Tokens and proofs are made for the port that the provider was told of.
            config = one.folder / "doorward.toml"
            config.write_text(config.read_text().replace(f":{one.gateway_port}", f":{port}"))
            one.gateway_port = port
            one.start()
            yield Door(one, provider, corp)


def test_a_workload_is_let_in_by_an_openssl_made_svid(door: Door) -> None:
    svid = door.corp.svid("etl", "spiffe://corp.example/ns/prod/sa/etl")
    status, _, body = door.get(certificate=svid)
    assert (status, [model["id"] for model in body["data"]]) == (200, ["m"])
    session = wait_until(
        lambda: [r for r in door.one.records() if r.get("principal") == 'Service::"etl"'], what="a record"
    )[0]["session"]
    assert (session["method"], session["source"]) == ("svid", "spiffe://corp.example")


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("unknown", "spiffe://corp.example/ns/prod/sa/nobody"),
        ("foreign", "spiffe://third.example/ns/prod/sa/etl"),
    ],
)
def test_a_workload_that_is_nobody_here_is_refused_although_tls_accepts_it(
    door: Door, name: str, uri: str
) -> None:
    status, headers, _ = door.get(certificate=door.corp.svid(name, uri))
    assert status == 401
    assert "resource_metadata=" in headers["www-authenticate"]


def test_another_authority_does_not_get_past_the_handshake(door: Door, tmp_path: Path) -> None:
    evil = Openssl(tmp_path, "evil").svid("etl", "spiffe://corp.example/ns/prod/sa/etl")
    with pytest.raises((OSError, urllib.error.URLError)):
        door.get(certificate=evil)


def test_a_client_finds_the_provider_from_the_challenge_and_gets_in(door: Door) -> None:
    status, headers, _ = door.get()
    assert status == 401
    named = headers["www-authenticate"].partition('resource_metadata="')[2].partition('"')[0]
    _, _, metadata = door.get(named.removeprefix(door.one.url))
    assert metadata["resource"] == f"{door.one.url}/llm"
    # The local issuer is named, too; most clients take the first.
    assert metadata["authorization_servers"][0] == door.provider.issuer
    assert len(metadata["authorization_servers"]) == 2
    token = door.provider.token()
    assert door.get(Authorization=f"Bearer {token}")[0] == 200


def test_an_opaque_token_ends_with_its_revocation(door: Door) -> None:
    token = door.provider.token(opaque=True)
    assert door.get(Authorization=f"Bearer {token}")[0] == 200
    door.provider.revoke(token)
    wait_until(
        lambda: door.get(Authorization=f"Bearer {token}")[0] == 401, what="the revoked token is refused"
    )


def test_a_bound_token_follows_the_nonce_and_works_once_per_proof(door: Door) -> None:
    prover = ProofMaker(SystemClock())
    token = door.provider.token(prover=prover)
    url = f"{door.one.url}/llm/v1/models"
    status, headers, _ = door.get(Authorization=f"DPoP {token}", DPoP=prover.proof(url, token=token))
    assert status == 401
    assert 'error="use_dpop_nonce"' in headers["www-authenticate"]
    proof = prover.proof(url, token=token, nonce=headers["dpop-nonce"])
    assert door.get(Authorization=f"DPoP {token}", DPoP=proof)[0] == 200
    assert door.get(Authorization=f"DPoP {token}", DPoP=proof)[0] == 401
    assert door.get(Authorization=f"Bearer {token}")[0] == 401
    reasons = [r["request"].get("reason") for r in door.one.records() if r.get("kind") == "decision"]
    assert {"proof_nonce_wanted", "proof_replayed", "bound_token_without_proof"} <= set(reasons)


def test_somebody_unknown_becomes_somebody_with_the_groups_of_her_token(door: Door) -> None:
    assert door.get(Authorization=f"Bearer {door.provider.token(client='newcomer')}")[0] == 200
    nina = json.loads(door.one.cli("people", "show", "nina", "--json"))
    assert (nina["groups"], nina["active"]) == (["visitors"], True)
    recorded = [r for r in door.one.records() if "speaks of somebody new, " in r.get("detail", "")]
    assert recorded[0]["changes"]["groups"] == ["visitors"]


def test_a_token_takes_over_nobody_and_makes_no_governor(door: Door) -> None:
    assert door.get(Authorization=f"Bearer {door.provider.token(client='taker')}")[0] == 401
    links = json.loads(door.one.cli("people", "identities", "--json"))
    assert all(link["subject"] != "taker" for link in links)
    door.get(Authorization=f"Bearer {door.provider.token(client='climber')}")
    people = {person["name"]: person["groups"] for person in json.loads(door.one.cli("people", "--json"))}
    assert people.get("carl", []) == []


def test_a_stock_client_follows_discovery_nonce_and_step_up_to_the_end(door: Door) -> None:
    script = Path(__file__).parents[1] / "support/stock_client.mjs"
    certificate = {"NODE_EXTRA_CA_CERTS": str(door.one.data / "tls" / "ca.pem")}
    result = subprocess.run(
        [node(), str(script), door.one.url, str(ROOT)],
        env={**os.environ, **certificate}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    # Nobody; then the nonce; then a password alone is too little; then the second factor opens.
    assert json.loads(result.stdout) == [401, "nonce", "insufficient_user_authentication", 200, "m"]
