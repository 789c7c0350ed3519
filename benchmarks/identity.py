"""What it costs to know who asks: a token seen before, a first one, a proof, a key; beside two libraries.

The peers verify the same token with the same key: joserfc and Authlib as a service would call them on each
request, without a cache. Times are the best of several rounds, on one core.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from benchmarks.report import Figure, arguments, progress, publish
from doorward.core.clock import SystemClock
from doorward.core.feed import Known
from doorward.core.identity import IdentityLink
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.values import uid_to_json
from doorward.core.wire import Peer, Request
from doorward.directory.snapshot import Snapshot
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator
from doorward.settings import IssuerSettings

ISSUER, GATE = "https://idp.example", "https://gate.example"
DANA = EntityUid.of("User", "dana")
_ROUNDS = 7
_OTHERS = (("host", "gate.example"), ("user-agent", "python-httpx/0.28"), ("accept", "*/*"),
           ("accept-encoding", "gzip"), ("content-type", "application/json"))  # fmt: skip


class Bench:
    """An issuer, a gateway's authenticator and a client, in one process."""

    def __init__(self) -> None:
        """Make keys, link dana, give her a key."""
        self.key, self.client = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
        person = {"uid": uid_to_json(DANA), "attrs": {"active": True}, "parents": []}
        record, text = api_keys.create(
            key_id="01J00000000000000000000000", subject=DANA, now=datetime.now(UTC)
        )
        self.api_key = text.reveal()
        links = (IdentityLink(ISSUER, "00u1", DANA),)
        snapshot = Snapshot.of(Known(version=1, entities=(person,), identities=links, keys=(record,)))
        clock = SystemClock()
        self.gate = Authenticator(
            lambda: snapshot,
            [IssuerSettings(issuer=ISSUER, audience=GATE)],
            dict,
            clock,
            GATE,
            one_time=MemoryOneTime(clock, capacity=2_000_000),
            fetch=self._fetch,
        )

    async def _fetch(self, url: str) -> bytes:
        if url.endswith("openid-configuration"):
            return json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"}).encode()
        return json.dumps({"keys": [{**self.key.as_dict(private=False), "kid": "k"}]}).encode()

    def token(self, number: int = 0, **more: Any) -> str:
        """Return one of many different tokens, about as long as those of a real provider."""
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": "00u1", "aud": GATE, "client_id": "notebook", "iat": now, "exp": now + 3000,
            "jti": f"token-{number}", "scope": "openid profile " + "x" * 300, **more,
        }  # fmt: skip
        return jwt.encode(
            {"alg": "ES256", "typ": "at+jwt", "kid": "k"}, claims, self.key, algorithms=["ES256"]
        )

    def proof(self, token: str, number: int) -> str:
        """Return a DPoP proof for GET /llm/v1/models."""
        ath = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        claims = {
            "jti": f"p{number}",
            "htm": "GET",
            "htu": f"{GATE}/llm/v1/models",
            "iat": int(time.time()),
            "ath": ath,
        }
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": self.client.as_dict(private=False)}
        return jwt.encode(header, claims, self.client, algorithms=["ES256"])


def request(*headers: tuple[str, str]) -> Request:
    """Return a request with the headers that a stock client sends, too."""
    return Request(
        id="r", method="GET", path="/llm/v1/models", raw_path="/llm/v1/models", query=(), raw_query="",
        headers=(*_OTHERS, *headers), peer=Peer("127.0.0.1"), body=None,  # type: ignore[arg-type]  # nobody reads it
    )  # fmt: skip


def best(measure: Callable[[int], float], count: int) -> float:
    """Return the microseconds of one, in the best of several rounds."""
    return min(measure(count) for _ in range(_ROUNDS)) / count * 1e6


def cached_verification(bench: Bench, count: int) -> float:
    """Measure the verifier alone: whole token in, what it verifiably says out. Each text is a new object."""
    token, verifier = bench.token().encode(), bench.gate._verifier  # noqa: SLF001 -- the part that is promised
    asyncio.run(verifier.verify(token.decode()))
    texts = [token.decode() for _ in range(count)]
    now = datetime.now(UTC)

    def measure(_: int) -> float:
        # Texts from the wire have no hash yet: fresh objects each round.
        fresh = [text.encode().decode() for text in texts]
        cached = verifier.cached
        started = time.perf_counter()
        for text in fresh:
            cached(text, now=now)
        return time.perf_counter() - started

    return best(measure, count)


def authentications(bench: Bench, requests: list[Request]) -> float:
    """Measure whole authentications, request in and caller out, in seconds."""

    async def all_of_them() -> float:
        authenticate = bench.gate.authenticate
        started = time.perf_counter()
        for one in requests:
            await authenticate(one)
        return time.perf_counter() - started

    return asyncio.run(all_of_them())


def each(bench: Bench, requests: list[Request]) -> float:
    """Return the microseconds of one authentication."""
    return authentications(bench, requests) / len(requests) * 1e6


def libraries(bench: Bench, count: int) -> dict[str, float]:
    """Return what the same token costs in libraries, per verification, in microseconds."""
    from authlib.jose import JsonWebKey, JsonWebToken  # noqa: PLC0415 -- a peer, needed here only

    token = bench.token()
    public = JsonWebKey.import_key(bench.key.as_dict(private=False))
    authlib = JsonWebToken(["ES256"])

    def by_joserfc(number: int) -> float:
        started = time.perf_counter()
        for _ in range(number):
            jwt.decode(token, bench.key, algorithms=["ES256"])
        return time.perf_counter() - started

    def by_authlib(number: int) -> float:
        started = time.perf_counter()
        for _ in range(number):
            authlib.decode(token, public).validate()
        return time.perf_counter() - started

    return {"joserfc": best(by_joserfc, count), "authlib": best(by_authlib, count)}


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "")
    count = 2_000 if options.quick else 20_000
    bench = Bench()
    progress("a token that was seen before")
    verified = cached_verification(bench, count)
    token = bench.token()
    known = [request(("authorization", f"Bearer {token}")) for _ in range(count)]
    whole = min(each(bench, known) for _ in range(_ROUNDS))
    progress("tokens never seen")
    firsts = count // 10
    first = each(
        bench, [request(("authorization", f"Bearer {bench.token(n)}")) for n in range(1, firsts + 1)]
    )
    progress("the same in libraries")
    peers = libraries(bench, max(count // 20, 100))
    progress("proofs of possession and keys")
    bound = bench.token(cnf={"jkt": bench.client.thumbprint()})
    proofs = [
        request(("authorization", f"DPoP {bound}"), ("dpop", bench.proof(bound, number)))
        for number in range(firsts)
    ]
    proof = each(bench, proofs)
    keys = [request(("authorization", f"Bearer {bench.api_key}")) for _ in range(count)]
    key = min(each(bench, keys) for _ in range(_ROUNDS))
    publish(
        [
            Figure("verify a token seen before", "us", verified, peers, "<= 1 us", verified <= 1),
            Figure("authenticate a request, token seen before", "us", whole),
            Figure("authenticate a request, token never seen", "us", first, peers),
            Figure("authenticate a request, DPoP token and proof", "us", proof),
            Figure("authenticate a request, API key", "us", key),
        ],
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
