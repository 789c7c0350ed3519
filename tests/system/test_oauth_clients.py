"""Services and agents get tokens by their own keys: every error by its RFC, every way around refused."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey

from doorward.core.errors import UnauthenticatedError
from doorward.core.identity import Bounds
from doorward.core.model import EntityUid
from doorward.directory.org import parse
from doorward.identity.client_authentication import ASSERTION_TYPE
from support.browser_client import BrowserClient
from support.oauth_plane import GATE, OAuth, Said, assertion, basic_of, bearer, claims_of, issuing, proof

ETL = EntityUid.of("Service", "etl")
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
async def oauth() -> AsyncIterator[OAuth]:
    async with issuing() as oauth:
        yield oauth


class TestClientCredentials:
    @pytest.mark.parametrize("name", ["service/etl", "etl", 'Service::"etl"'])
    async def test_a_service_gets_a_token_for_itself_by_its_key(self, oauth: OAuth, name: str) -> None:
        text, record = oauth.key("Service", "etl")
        said = await oauth.token(basic=(name, text), **GRANT)
        assert said.status == 200, said.body
        assert (said.json["token_type"], said.json["expires_in"]) == ("Bearer", 900)
        assert (said.header("cache-control"), said.header("pragma")) == ("no-store", "no-cache")
        caller = await oauth.caller(said.token)
        assert (caller.principal, caller.minted, caller.mfa_at, caller.actors) == (ETL, False, None, ())
        assert caller.descent is not None
        assert caller.descent.keys == (record.id,)
        assert claims_of(said.token)["client_id"] == "service/etl"

    async def test_the_token_ends_with_the_key_it_was_made_with(self, oauth: OAuth) -> None:
        text, record = oauth.key("Service", "etl", lifetime=timedelta(seconds=90))
        said = await oauth.token(basic=("service/etl", text), **GRANT)
        assert said.json["expires_in"] <= 90
        gate = oauth.gate()
        await oauth.caller(said.token, gate=gate)
        oauth.plane.services.directory.revoke_key(record.id)
        with pytest.raises(UnauthenticatedError) as refused:
            await oauth.caller(said.token, gate=gate)
        assert refused.value.reason == "ancestor_key_revoked"

    async def test_the_bounds_of_the_key_hold_for_the_token_and_a_scope_cannot_widen_them(
        self, oauth: OAuth
    ) -> None:
        text, _ = oauth.key("Service", "etl", bounds=Bounds(actions=("read", "view")))
        said = await oauth.token(basic=("service/etl", text), **GRANT, scope="read export")
        assert said.json["scope"] == "read"
        caller = await oauth.caller(said.token)
        dataset = EntityUid.of("Dataset", "store/a")
        allowed = [a for a in ("read", "view", "export") if all(b.permits(a, dataset) for b in caller.bounds)]
        assert allowed == ["read"]
        refused = await oauth.token(basic=("service/etl", text), **GRANT, scope="export")
        assert refused.error == (400, "invalid_scope")

    async def test_a_key_bound_to_a_purpose_and_to_networks_binds_its_tokens(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl", purpose="fraud-model", networks=("127.0.0.1/32",))
        token = (await oauth.token(basic=("service/etl", text), **GRANT)).token
        assert (await oauth.caller(token)).bound_purpose == "fraud-model"
        gate = oauth.gate()
        with pytest.raises(UnauthenticatedError) as refused:
            await gate.authenticate(bearer(token, ip="192.0.2.7"))
        assert refused.value.reason == "ancestor_key_used_from_elsewhere"

    @pytest.mark.parametrize(
        ("basic", "status"),
        [
            (("service/watcher", "OWN"), 401),  # somebody else's name with one's own key
            (("service/etl", "dw_" + "0" * 49), 401),
            (("service/etl", ""), 401),
            (("", "OWN"), 401),
        ],
    )
    async def test_a_client_that_does_not_authenticate_is_told_no_more_than_that(
        self, oauth: OAuth, basic: tuple[str, str], status: int
    ) -> None:
        text, _ = oauth.key("Service", "etl")
        name, secret = basic
        said = await oauth.token(basic=(name, text if secret == "OWN" else secret), **GRANT)
        assert said.error == (status, "invalid_client")
        assert said.header("www-authenticate").startswith("Basic ")
        assert said.json["error_description"] == "the client did not authenticate"

    @pytest.mark.parametrize("kind", ["User"])
    async def test_a_persons_key_is_no_client_secret(self, oauth: OAuth, kind: str) -> None:
        text, _ = oauth.key(kind, "dana")
        for name in ("user/dana", "dana", 'User::"dana"'):
            assert (await oauth.token(basic=(name, text), **GRANT)).error == (401, "invalid_client")

    async def test_a_service_that_is_not_active_gets_nothing(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        oauth.plane.services.directory.apply(parse("services: { etl: { owner: dana, active: false } }", "x"))
        assert (await oauth.token(basic=("service/etl", text), **GRANT)).error == (401, "invalid_client")

    async def test_the_cli_has_nothing_of_its_own(self, oauth: OAuth) -> None:
        assert (await oauth.token(client_id="doorward-cli", **GRANT)).error == (400, "unauthorized_client")
        assert (await oauth.token(**GRANT)).error == (401, "invalid_client")
        assert (await oauth.token(client_id="service/etl", **GRANT)).error == (401, "invalid_client")


class TestOneReading:
    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (b"grant_type=client_credentials&grant_type=client_credentials", {}),
            (b"grant_type=client_credentials&scope=read&scope=view", {}),
            (b'{"grant_type":"client_credentials"}', {"content_type": "application/json"}),
            (b"grant_type=client_credentials", {"content_type": "multipart/form-data; boundary=x"}),
            (b"grant_type=client_credentials", {"content_type": ""}),
            (b"grant_type=%ff", {}),
            (b"grant_type", {}),
            (b"&".join(b"a%d=1" % n for n in range(100)), {}),
            (b"x=" + b"a" * 70_000, {}),
            (b"", {}),
        ],
    )
    async def test_a_form_that_can_be_read_in_two_ways_is_refused(
        self, oauth: OAuth, body: bytes, headers: dict[str, str]
    ) -> None:
        text, _ = oauth.key("Service", "etl")
        said = await oauth.post("/oauth/token", body, authorization=basic_of("service/etl", text), **headers)
        assert said.error == (400, "invalid_request")

    async def test_parameters_in_the_address_are_refused(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        said = await oauth.post(
            "/oauth/token?grant_type=client_credentials", b"", authorization=basic_of("service/etl", text)
        )
        assert said.error == (400, "invalid_request")

    async def test_two_ways_to_authenticate_at_once_are_refused(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        both = {"basic": ("service/etl", text), **GRANT}
        assert (await oauth.token(**both, client_assertion="a.b.c")).error == (400, "invalid_request")
        assert (await oauth.token(**both, client_secret=text)).error == (400, "invalid_request")
        # A secret in the form lands where forms are logged.
        assert (await oauth.token(client_id="service/etl", client_secret=text, **GRANT)).error == (
            401,
            "invalid_client",
        )

    async def test_an_unknown_grant_is_named_so(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        for grant in ("password", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"):
            said = await oauth.token(basic=("service/etl", text), grant_type=grant)
            assert said.error == (400, "unsupported_grant_type")
        assert (await oauth.token(basic=("service/etl", text))).error == (400, "invalid_request")

    async def test_a_page_of_another_site_gets_nothing(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        said = await oauth.post(
            "/oauth/token",
            GRANT,
            authorization=basic_of("service/etl", text),
            origin="http://evil.example",
            sec_fetch_site="cross-site",
        )
        assert said.status == 403


class TestWhatFor:
    @pytest.mark.parametrize("resource", [GATE, f"{GATE}/llm", f"{GATE}/llm/mcp"])
    async def test_a_token_is_for_the_resource_that_was_asked(self, oauth: OAuth, resource: str) -> None:
        text, _ = oauth.key("Service", "etl")
        said = await oauth.token(basic=("service/etl", text), **GRANT, resource=resource)
        assert claims_of(said.token)["aud"] == resource

    @pytest.mark.parametrize(
        "resource",
        [
            "https://evil.example", f"{GATE}.evil.example", f"{GATE}@evil.example", f"{GATE}/",
            f"{GATE}/llm/", f"{GATE}/../llm", f"{GATE}/nowhere",
            f"{GATE}/llm?x=1", f"{GATE}/llm#x", f"{GATE}/%6clm", "llm",
        ],
    )  # fmt: skip
    async def test_nobody_gets_a_token_for_what_is_not_ours(self, oauth: OAuth, resource: str) -> None:
        text, _ = oauth.key("Service", "etl")
        said = await oauth.token(basic=("service/etl", text), **GRANT, resource=resource)
        assert said.error == (400, "invalid_target")

    async def test_a_token_is_for_one_resource_only(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        both = [("grant_type", "client_credentials"), ("resource", GATE), ("resource", oauth.issuer)]
        said = await oauth.post("/oauth/token", both, authorization=basic_of("service/etl", text))
        assert said.error == (400, "invalid_target")

    async def test_a_token_for_the_management_api_does_not_open_the_gateway(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        token = (await oauth.token(basic=("service/etl", text), **GRANT, resource=oauth.issuer)).token
        with pytest.raises(UnauthenticatedError) as refused:
            await oauth.caller(token)
        assert refused.value.reason == "audience_wrong"

    @pytest.mark.parametrize(
        "details",
        [
            "x", "[]", "{}", '[{"type":"other"}]', '[{"type":"doorward","actions":["fly"]}]',
            '[{"type":"doorward","resources":["User::\\"dana\\""]}]', '[{"type":"doorward","more":1}]',
            '[{"type":"doorward"},{"type":"doorward"}]', '[{"type":"doorward","max_tokens":-1}]',
        ],
    )  # fmt: skip
    async def test_details_that_are_not_understood_are_refused(self, oauth: OAuth, details: str) -> None:
        text, _ = oauth.key("Service", "etl")
        said = await oauth.token(basic=("service/etl", text), **GRANT, authorization_details=details)
        assert said.error == (400, "invalid_authorization_details")

    async def test_details_bound_the_token(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        details = [{"type": "doorward", "resources": ['Model::"llm/tiny"'], "max_tokens": 64}]
        said = await oauth.token(
            basic=("service/etl", text), **GRANT, authorization_details=json.dumps(details)
        )
        (bounds,) = (await oauth.caller(said.token)).bounds
        assert bounds == Bounds(resources=(EntityUid.of("Model", "llm/tiny"),), max_tokens=64)


class TestBoundTokens:
    async def test_a_proof_at_the_token_endpoint_binds_the_token(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        key = ECKey.generate_key("P-256")
        said = await oauth.token(
            basic=("service/etl", text), **GRANT, dpop=proof(key, f"{oauth.issuer}/oauth/token")
        )
        assert said.status == 200, said.body
        assert said.json["token_type"] == "DPoP"
        assert claims_of(said.token)["cnf"] == {"jkt": key.thumbprint()}
        with pytest.raises(UnauthenticatedError) as refused:
            await oauth.caller(said.token)
        assert refused.value.reason == "bound_token_without_proof"

    @pytest.mark.parametrize(
        "tamper", [{"htm": "GET"}, {"htu": "http://evil.example/oauth/token"}, {"iat": 1}, {"jti": ""}]
    )
    async def test_a_proof_for_something_else_is_refused(
        self, oauth: OAuth, tamper: dict[str, object]
    ) -> None:
        text, _ = oauth.key("Service", "etl")
        key = ECKey.generate_key("P-256")
        said = await oauth.token(
            basic=("service/etl", text), **GRANT, dpop=proof(key, f"{oauth.issuer}/oauth/token", **tamper)
        )
        assert said.error == (400, "invalid_dpop_proof")

    async def test_a_proof_works_once(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        shown = proof(ECKey.generate_key("P-256"), f"{oauth.issuer}/oauth/token")
        statuses = [
            (await oauth.token(basic=("service/etl", text), **GRANT, dpop=shown)).status for _ in range(3)
        ]
        assert statuses == [200, 400, 400]


class TestRevocation:
    async def test_a_revoked_token_opens_nothing_and_twice_is_no_error(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        token = (await oauth.token(basic=("service/etl", text), **GRANT)).token
        gate = oauth.gate()
        await oauth.caller(token, gate=gate)
        for _ in range(2):
            said = await oauth.post(
                "/oauth/revoke", {"token": token}, authorization=basic_of("service/etl", text)
            )
            assert said.status == 200
        with pytest.raises(UnauthenticatedError) as refused:
            await oauth.caller(token, gate=gate)
        assert refused.value.reason == "token_revoked"

    async def test_nobody_revokes_anothers_token(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        other, _ = oauth.key("Service", "watcher")
        token = (await oauth.token(basic=("service/etl", text), **GRANT)).token
        said = await oauth.post(
            "/oauth/revoke", {"token": token}, authorization=basic_of("service/watcher", other)
        )
        assert said.error == (400, "unauthorized_client")
        await oauth.caller(token)

    async def test_what_is_no_token_is_revoked_already(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        for token in ("nonsense", "a.b.c", "dw_123"):
            said = await oauth.post(
                "/oauth/revoke", {"token": token}, authorization=basic_of("service/etl", text)
            )
            assert said.status == 200
        assert (await oauth.post("/oauth/revoke", {"token": "x"})).error == (401, "invalid_client")


class TestIntrospection:
    async def test_a_service_that_may_inspect_keys_learns_what_a_token_says(self, oauth: OAuth) -> None:
        asking, _ = oauth.key("Service", "watcher")
        token = oauth.mint("dana")
        said = await oauth.post(
            "/oauth/introspect", {"token": token}, authorization=basic_of("service/watcher", asking)
        )
        assert said.json["active"] is True
        assert (said.json["sub"], said.json["aud"]) == ('User::"dana"', GATE)
        services = oauth.plane.services
        services.directory.revoke_token(said.json["jti"], services.clock.now() + timedelta(hours=1))
        said = await oauth.post(
            "/oauth/introspect", {"token": token}, authorization=basic_of("service/watcher", asking)
        )
        assert said.json == {"active": False}

    async def test_nobody_else_learns_anything(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        token = oauth.mint("dana")
        said = await oauth.post(
            "/oauth/introspect", {"token": token}, authorization=basic_of("service/etl", text)
        )
        assert said.error == (403, "access_denied")
        cli = await oauth.post("/oauth/introspect", {"token": token, "client_id": "doorward-cli"})
        assert cli.error == (403, "access_denied")

    async def test_a_token_of_somebody_else_is_not_active(self, oauth: OAuth) -> None:
        asking, _ = oauth.key("Service", "watcher")
        forged = ".".join((*oauth.mint("dana").split(".")[:2], base64.urlsafe_b64encode(b"x" * 48).decode()))
        for token in (forged, "nonsense", asking):
            said = await oauth.post(
                "/oauth/introspect", {"token": token}, authorization=basic_of("service/watcher", asking)
            )
            assert said.json == {"active": False}


class TestFloods:
    async def test_guesses_of_one_address_are_bounded(self, oauth: OAuth) -> None:
        statuses = [(await oauth.token(basic=("service/etl", "guess"), **GRANT)).status for _ in range(62)]
        assert statuses[:60] == [401] * 60
        assert statuses[60:] == [429, 429]

    async def test_what_was_issued_and_refused_is_on_record(self, oauth: OAuth) -> None:
        text, _ = oauth.key("Service", "etl")
        token = (await oauth.token(basic=("service/etl", text), **GRANT)).token
        await oauth.token(basic=("service/etl", text), **GRANT, resource="https://evil.example")
        log = b"".join(file.read_bytes() for file in (oauth.plane.data / "audit").rglob("*.jsonl"))
        records = [json.loads(line) for line in log.splitlines()]
        issued = [r for r in records if r.get("resource") == f'Key::"{claims_of(token)["jti"]}"']
        assert [(r["principal"], r["decision"]) for r in issued] == [('Service::"etl"', "allow")]
        assert any(r.get("decision") == "deny" and "invalid_target" in r["detail"] for r in records)
        assert text.encode() not in log
        assert token.encode() not in log


async def test_the_metadata_is_complete_and_true(oauth: OAuth) -> None:
    browser = BrowserClient(oauth.plane.port)
    told = (await browser.get("/.well-known/oauth-authorization-server")).json
    assert told["issuer"] == oauth.issuer
    for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        path = told[name].removeprefix(oauth.issuer)
        assert (await oauth.post(path, {})).error[1] in {"invalid_client", "invalid_request"}, name
    assert told["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "private_key_jwt", "none"]


class TestSignedAssertions:
    """`private_key_jwt`: nothing secret is ever sent, and nothing that was sent works again."""

    @pytest.fixture
    async def signer(self, oauth: OAuth) -> tuple[ECKey, str]:
        key = ECKey.generate_key("P-256")
        status, made = await oauth.plane.operator(
            "POST", "/api/v1/keys", {"service": "etl", "public_key": key.as_pem(private=False).decode()}
        )
        assert status == 201, made
        assert (made["key"], made["secret_access_key"], made["access_key_id"]) == (None, None, None)
        return key, made["id"]

    async def ask(self, oauth: OAuth, text: str, **more: str) -> Said:
        return await oauth.token(client_assertion_type=ASSERTION_TYPE, client_assertion=text, **GRANT, **more)

    async def test_a_service_gets_a_token_with_a_key_that_never_leaves_it(
        self, oauth: OAuth, signer: tuple[ECKey, str]
    ) -> None:
        key, key_id = signer
        for audience in (oauth.issuer, f"{oauth.issuer}/oauth/token", [oauth.issuer]):
            for kid in (key.thumbprint(), key_id, ...):
                text = assertion(key, "service/etl", audience, header={"kid": kid})
                said = await self.ask(oauth, text)
                caller = await oauth.caller(said.token)
                assert caller.principal == ETL
                assert caller.descent is not None
                assert caller.descent.keys == (key_id,)
        oauth.plane.services.directory.revoke_key(key_id)
        said = await self.ask(oauth, assertion(key, "service/etl", oauth.issuer))
        assert said.error == (401, "invalid_client")

    async def test_an_assertion_used_50_times_at_once_works_once(
        self, oauth: OAuth, signer: tuple[ECKey, str]
    ) -> None:
        text = assertion(signer[0], "service/etl", oauth.issuer)
        said = await asyncio.gather(*(self.ask(oauth, text) for _ in range(50)))
        assert sorted(one.status for one in said) == [200] + [401] * 49

    @pytest.mark.parametrize(
        "tamper",
        [
            {"sub": "service/watcher"},
            {"iss": "service/watcher"},
            {"iss": "service/watcher", "sub": "service/watcher"},
            {"aud": "https://evil.example"},
            {"aud": ["ISSUER", "https://evil.example"]},
            {"aud": ...},
            {"exp": 1},
            {"exp": ...},
            {"exp": 4_000_000_000},
            {"iat": 4_000_000_000},
            {"nbf": 4_000_000_000},
            {"jti": ...},
            {"jti": ""},
            {"jti": 7},
        ],
    )
    async def test_an_assertion_that_says_something_else_is_refused(
        self, oauth: OAuth, signer: tuple[ECKey, str], tamper: dict[str, Any]
    ) -> None:
        said_for = {
            name: [oauth.issuer if one == "ISSUER" else one for one in value]
            if isinstance(value, list)
            else value
            for name, value in tamper.items()
        }
        text = assertion(signer[0], "service/etl", oauth.issuer, **said_for)
        assert (await self.ask(oauth, text)).error == (401, "invalid_client")

    async def test_another_key_type_or_header_is_refused(
        self, oauth: OAuth, signer: tuple[ECKey, str]
    ) -> None:
        key, key_id = signer
        other = ECKey.generate_key("P-256")
        texts = [
            assertion(other, "service/etl", oauth.issuer),
            assertion(other, "service/etl", oauth.issuer, header={"kid": key_id}),
            assertion(other, "service/etl", oauth.issuer, header={"kid": ...}),
            assertion(key, "service/etl", oauth.issuer, header={"typ": "at+jwt"}),
            assertion(key, "service/etl", oauth.issuer, header={"typ": "dpop+jwt"}),
            oauth.mint("dana"),
            "a.b.c",
        ]
        for text in texts:
            assert (await self.ask(oauth, text)).error == (401, "invalid_client")
        text = assertion(key, "service/etl", oauth.issuer)
        assert (await self.ask(oauth, text, client_id="service/watcher")).error == (401, "invalid_client")

    async def test_what_is_no_public_key_of_a_client_is_not_registered(self, oauth: OAuth) -> None:
        key = ECKey.generate_key("P-256")
        public = key.as_pem(private=False).decode()
        for body in (
            {"service": "etl", "public_key": key.as_pem(private=True).decode()},
            {"service": "etl", "public_key": json.dumps(key.as_dict(private=True))},
            {"service": "etl", "public_key": '{"kty":"oct","k":"c2VjcmV0"}'},
            {"service": "etl", "public_key": "nonsense"},
            {"user": "dana", "public_key": public},
        ):
            status, said = await oauth.plane.operator("POST", "/api/v1/keys", body)
            assert (status, said["code"]) == (400, "invalid_request"), body
        assert (await oauth.plane.operator("POST", "/api/v1/keys", {"agent": "scout", "public_key": public}))[
            0
        ] == 201
        # One key is one client's.
        twice = await oauth.plane.operator("POST", "/api/v1/keys", {"service": "etl", "public_key": public})
        assert twice[0] == 409
