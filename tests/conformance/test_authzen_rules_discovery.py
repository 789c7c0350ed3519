"""AuthZEN 1.0 certification, Discovery and transport: the metadata over TLS, plain and signed."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from doorward.console.authzen_metadata import ENDPOINTS
from support import authzen_plane, console_plane
from support.authzen_plane import EVALUATION, Pep
from support.authzen_rules import FIRST, READ

WELL_KNOWN, PUBLIC = "/.well-known/authzen-configuration", "https://doorward.example"
REQUIRED = ("policy_decision_point", "access_evaluation_endpoint")


@asynccontextmanager
async def published(url: str | None = PUBLIC) -> AsyncIterator[Pep]:
    async with authzen_plane.running(public_url=url) as pep:
        yield pep


async def metadata(pep: Pep, host: str = "doorward.example") -> dict[str, Any]:
    answer = await pep.send("GET", WELL_KNOWN, authorization="", host=host)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    document: dict[str, Any] = answer.json
    return document


async def test_6_1_the_metadata_stands_at_the_well_known_address_of_the_identifier() -> None:
    async with published() as pep:
        document = await metadata(pep)
        assert document["policy_decision_point"] == PUBLIC
        assert (await pep.send("GET", f"{WELL_KNOWN}/tenant1", host="doorward.example")).status == 404
        assert (await pep.send("GET", WELL_KNOWN, host="evil.example")).status == 421
        assert (await pep.send("POST", WELL_KNOWN, b"{}")).status in {403, 405}


async def test_6_3_and_6_5_every_address_is_https_and_its_own() -> None:
    async with published() as pep:
        document = await metadata(pep)
        assert all(document[name] for name in REQUIRED)
        for name, path in ENDPOINTS.items():
            assert document[name] == f"{PUBLIC}/access/v1/{path}"
        assert all("?" not in value and "#" not in value for value in map(str, document.values()))


async def test_6_4_capabilities_and_obligations_are_lists_of_names() -> None:
    async with published() as pep:
        document = await metadata(pep)
        assert document["capabilities"]
        assert all(urn.startswith("urn:") for urn in document["capabilities"])
        assert set(document["supported_obligations"]) == {"step-up", "notification", "custom"}
        # 9.2.2: what has no value is left out.
        assert all(value not in {None, ""} for value in document.values() if not isinstance(value, list))


async def test_6_5_the_signed_metadata_verifies_and_says_the_same() -> None:
    async with published() as pep:
        document = await metadata(pep)
        keys = (await pep.send("GET", "/access/v1/jwks", authorization="")).json
        assert document["jwks_uri"] == f"{PUBLIC}/access/v1/jwks"
        assert not any("d" in key for key in keys["keys"])
        text = document.pop("signed_metadata")
        token = jwt.decode(text, KeySet.import_key_set(keys), algorithms=["ES256"])
        assert token.header["typ"] == "authzen-metadata+jwt"
        claims = dict(token.claims)
        now = pep.plane.services.clock.now().timestamp()
        assert claims.pop("iss") == PUBLIC
        assert claims.pop("iat") <= now + 1
        assert claims.pop("exp") > now + 3600
        assert claims == document
        assert "signed_metadata" not in claims


async def test_the_metadata_key_is_of_this_installation_alone_and_signs_no_tokens() -> None:
    async with published() as one, published() as two:
        signed = (await metadata(one))["signed_metadata"]
        foreign = (await two.send("GET", "/access/v1/jwks")).json
        issuer = (await one.send("GET", "/jwks")).json
        foreign["keys"][0]["kid"] = (await one.send("GET", "/access/v1/jwks")).json["keys"][0]["kid"]
        with pytest.raises(JoseError):
            jwt.decode(signed, KeySet.import_key_set(foreign), algorithms=["ES256"])
        own = (await one.send("GET", "/access/v1/jwks")).json["keys"]
        assert {key["kid"] for key in own}.isdisjoint(key["kid"] for key in issuer["keys"])


async def test_on_loopback_the_identifier_is_the_address_that_was_asked() -> None:
    async with published(None) as pep:
        for host in (f"127.0.0.1:{pep.plane.port}", f"localhost:{pep.plane.port}"):
            assert (await metadata(pep, host))["policy_decision_point"] == f"http://{host}"
        # A port of another process is never signed for.
        elsewhere = await metadata(pep, "localhost:1")
        assert elsewhere["policy_decision_point"] == f"http://127.0.0.1:{pep.plane.port}"


async def test_behind_a_terminator_the_public_name_is_ours_and_came_by_tls() -> None:
    async with published() as pep:
        question = {"subject": {"type": "user", "id": "alice"}, "action": READ, "resource": FIRST}
        answer = await pep.post(EVALUATION, question, host="doorward.example")
        assert (answer.status, answer.json) == (200, {"decision": True})
        assert "strict-transport-security" in answer.headers
        issuer = (await pep.send("GET", "/.well-known/oauth-authorization-server")).json["issuer"]
        assert issuer == PUBLIC


async def test_5_1_it_answers_over_https_and_the_installations_ca_vouches_for_it() -> None:
    async with console_plane.running(secure=True) as plane:
        context = ssl.create_default_context(cafile=str(plane.ca))

        def ask() -> dict[str, Any]:
            connection = http.client.HTTPSConnection("127.0.0.1", plane.port, context=context, timeout=20)
            try:
                connection.request("GET", WELL_KNOWN)
                document: dict[str, Any] = json.loads(connection.getresponse().read())
                return document
            finally:
                connection.close()

        document = await asyncio.to_thread(ask)
        assert document["policy_decision_point"] == f"https://127.0.0.1:{plane.port}"
        assert all(document[name].startswith("https://") for name in ENDPOINTS)
