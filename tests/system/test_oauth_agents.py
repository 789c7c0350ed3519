"""Agents exchange somebody's token for one to act with: who may, for what, and what ends it (RFC 8693)."""

from __future__ import annotations

import asyncio
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
from doorward.identity.issuer import Granted
from support.oauth_plane import ACCESS, EXCHANGE, GATE, OAuth, assertion, basic_of, claims_of, issuing, proof

DANA, SCOUT, MAPPER = (
    EntityUid.of("User", "dana"),
    EntityUid.of("Agent", "scout"),
    EntityUid.of("Agent", "mapper"),
)


@pytest.fixture
async def oauth() -> AsyncIterator[OAuth]:
    async with issuing() as oauth:
        yield oauth


class TestDelegation:
    async def test_the_agent_acts_and_the_user_stays_who_it_is_for(self, oauth: OAuth) -> None:
        user = oauth.mint(purpose="fraud-model")
        key, record = oauth.key("Agent", "scout")
        said = await oauth.exchange(user, key)
        assert (said.json["issued_token_type"], said.json["token_type"]) == (ACCESS, "Bearer")
        claims = claims_of(said.token)
        assert (claims["sub"], claims["act"]) == ('User::"dana"', {"sub": 'Agent::"scout"'})
        caller = await oauth.caller(said.token)
        assert (caller.principal, caller.actors, caller.bound_purpose) == (DANA, (SCOUT,), "fraud-model")
        assert caller.descent is not None
        assert (caller.descent.tokens, caller.descent.keys) == ((claims_of(user)["jti"],), (record.id,))
        assert claims["exp"] <= claims_of(user)["exp"]
        assert caller.minted

    async def test_a_chain_nests_and_ends_at_three(self, oauth: OAuth) -> None:
        token = oauth.mint()
        for name in ("scout", "mapper", "third"):
            token = (await oauth.exchange(token, oauth.key("Agent", name)[0], f"agent/{name}")).token
        nested = {
            "sub": 'Agent::"third"',
            "act": {"sub": 'Agent::"mapper"', "act": {"sub": 'Agent::"scout"'}},
        }
        assert claims_of(token)["act"] == nested
        said = await oauth.exchange(token, oauth.key("Agent", "fourth")[0], "agent/fourth")
        assert said.error == (400, "invalid_request")
        assert "three" in said.json["error_description"]

    async def test_a_loop_is_refused(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "scout")
        once = (await oauth.exchange(oauth.mint(), key)).token
        assert (await oauth.exchange(once, key)).error == (400, "invalid_request")
        own = (await oauth.token(basic=("agent/scout", key), grant_type="client_credentials")).token
        assert (await oauth.exchange(own, key)).error == (400, "invalid_request")

    @pytest.mark.parametrize("how", ["actor_token", "key as actor_token", "both", "private_key_jwt"])
    async def test_an_agent_shows_itself_in_each_way(self, oauth: OAuth, how: str) -> None:
        key, record = oauth.key("Agent", "scout")
        own = (await oauth.token(basic=("agent/scout", key), grant_type="client_credentials")).token
        wanted: dict[str, Any] = {
            "grant_type": EXCHANGE, "subject_token": oauth.mint(), "subject_token_type": ACCESS,
        }  # fmt: skip
        match how:
            case "actor_token":
                said = await oauth.token(**wanted, actor_token=own, actor_token_type=ACCESS)
            case "key as actor_token":
                said = await oauth.token(**wanted, actor_token=key, actor_token_type=ACCESS)
            case "both":
                both = {"actor_token": own, "actor_token_type": ACCESS}
                said = await oauth.token(basic=("agent/scout", key), **wanted, **both)
            case _:
                signing = ECKey.generate_key("P-256")
                body = {"agent": "scout", "public_key": signing.as_pem(private=False).decode()}
                made = (await oauth.plane.operator("POST", "/api/v1/keys", body))[1]
                record = oauth.plane.services.directory.snapshot.keys[made["id"]]
                text = assertion(signing, "agent/scout", oauth.issuer)
                kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
                said = await oauth.token(**wanted, client_assertion=text, client_assertion_type=kind)
        caller = await oauth.caller(said.token)
        assert (caller.principal, caller.actors) == (DANA, (SCOUT,))
        assert caller.descent is not None
        assert record.id in caller.descent.keys


class TestActorConfusion:
    async def test_only_an_agent_can_act(self, oauth: OAuth) -> None:
        etl, _ = oauth.key("Service", "etl")
        assert (await oauth.exchange(oauth.mint(), etl, "service/etl")).error == (400, "unauthorized_client")
        wanted = {"grant_type": EXCHANGE, "subject_token": oauth.mint(), "subject_token_type": ACCESS}
        cli = await oauth.token(client_id="doorward-cli", **wanted)
        assert cli.error == (400, "unauthorized_client")
        for token in (oauth.mint("omar"), etl, (await self.own(oauth, "Service", "etl"))):
            said = await oauth.token(**wanted, actor_token=token, actor_token_type=ACCESS)
            assert said.error[0] == 400
            assert said.error[1] in {"invalid_request", "unauthorized_client"}
        assert (await oauth.token(**wanted)).error == (401, "invalid_client")

    async def own(self, oauth: OAuth, kind: str, name: str) -> str:
        key, _ = oauth.key(kind, name)
        basic = (f"{kind.lower()}/{name}", key)
        return (await oauth.token(basic=basic, grant_type="client_credentials")).token

    async def test_one_agent_cannot_act_in_anothers_name(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "mapper")
        scouts = await self.own(oauth, "Agent", "scout")
        said = await oauth.exchange(
            oauth.mint(), key, "agent/mapper", actor_token=scouts, actor_token_type=ACCESS
        )
        assert said.error == (400, "invalid_request")
        assert (await oauth.exchange(oauth.mint(), key, "agent/scout")).error == (401, "invalid_client")

    async def test_a_delegated_token_is_no_credential_of_the_agent_itself(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "scout")
        lent = (await oauth.exchange(oauth.mint("omar"), key)).token
        wanted = {"grant_type": EXCHANGE, "subject_token": oauth.mint(), "subject_token_type": ACCESS}
        said = await oauth.token(**wanted, actor_token=lent, actor_token_type=ACCESS)
        assert said.error == (400, "invalid_request")

    async def test_a_key_is_no_subject_token(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "scout")
        for subject in (oauth.key("User", "dana")[0], "nonsense", "a.b.c"):
            assert (await oauth.exchange(subject, key)).error == (400, "invalid_request")

    @pytest.mark.parametrize(
        "fields",
        [
            {"subject_token_type": None},
            {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
            {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            {"actor_token_type": ACCESS},
            {"actor_token": "a.b.c", "actor_token_type": None},
            {"actor_token": "a.b.c", "actor_token_type": ACCESS},
        ],
    )
    async def test_types_that_do_not_fit_are_refused(self, oauth: OAuth, fields: dict[str, Any]) -> None:
        key, _ = oauth.key("Agent", "scout")
        assert (await oauth.exchange(oauth.mint(), key, **fields)).error == (400, "invalid_request")


class TestNeverMore:
    @pytest.mark.parametrize(
        ("held", "wanted", "given"),
        [
            (f"{GATE}/llm", None, f"{GATE}/llm"),
            (f"{GATE}/llm", f"{GATE}/llm/mcp", f"{GATE}/llm/mcp"),
            (GATE, f"{GATE}/store", f"{GATE}/store"),
            (f"{GATE}/llm", GATE, None),
            (f"{GATE}/llm", f"{GATE}/store", None),
            (f"{GATE}/llm", "CONTROL", None),
            ("CONTROL", GATE, None),
            (GATE, "https://evil.example", None),
        ],
    )
    async def test_the_new_token_is_used_only_where_the_old_one_was(
        self, oauth: OAuth, held: str, wanted: str | None, given: str | None
    ) -> None:
        own = {"CONTROL": oauth.issuer}
        user = oauth.mint(audience=own.get(held, held))
        key, _ = oauth.key("Agent", "scout")
        for parameter in ("resource", "audience"):
            fields = {} if wanted is None else {parameter: own.get(wanted, wanted)}
            said = await oauth.exchange(user, key, **fields)
            if given is None:
                assert said.error == (400, "invalid_target")
            else:
                assert claims_of(said.token)["aud"] == given

    async def test_limits_are_kept_from_hop_to_hop(self, oauth: OAuth) -> None:
        details = [
            {
                "type": "doorward",
                "actions": ["invoke", "view"],
                "resources": ['Model::"llm/a"'],
                "max_tokens": 9,
            }
        ]
        scout, _ = oauth.key("Agent", "scout")
        first = await oauth.exchange(oauth.mint(), scout, authorization_details=json.dumps(details))
        assert first.json["scope"] == "view invoke"
        mapper, _ = oauth.key("Agent", "mapper", bounds=Bounds(upstreams=("llm",)))
        wider = json.dumps([{"type": "doorward", "resources": ['Model::"llm"'], "max_tokens": 900}])
        second = await oauth.exchange(
            first.token, mapper, "agent/mapper", scope="invoke read", authorization_details=wider
        )
        assert second.json["scope"] == "invoke"
        caller = await oauth.caller(second.token)

        def lets(action: str, name: str, tokens: int | None) -> bool:
            model = EntityUid.of("Model", name)
            return all(
                one.permits(action, model) and one.holds_to(action, max_tokens=tokens, arguments=None)
                for one in caller.bounds
            )

        assert lets("invoke", "llm/a", 9)
        assert lets("invoke", "llm/a/v1", 0)
        tries = [
            ("view", "llm/a", 1),
            ("invoke", "llm/a", 10),
            ("invoke", "llm/a", None),
            ("invoke", "llm/b", 1),
        ]
        assert not any(lets(*one) for one in tries)
        nothing = await oauth.exchange(first.token, mapper, "agent/mapper", scope="export")
        assert nothing.error == (400, "invalid_scope")

    async def test_it_ends_with_the_key_of_the_agent(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "scout", lifetime=timedelta(seconds=60))
        assert (await oauth.exchange(oauth.mint(), key)).json["expires_in"] <= 60

    async def test_two_purposes_do_not_become_one(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "scout", purpose="other")
        assert (await oauth.exchange(oauth.mint(purpose="fraud-model"), key)).error == (
            400,
            "invalid_request",
        )
        said = await oauth.exchange(oauth.mint(), key)
        assert (await oauth.caller(said.token)).bound_purpose == "other"

    async def test_a_bound_subject_token_needs_its_key(self, oauth: OAuth) -> None:
        key = ECKey.generate_key("P-256")
        text, _ = oauth.key("Service", "etl")
        endpoint = f"{oauth.issuer}/oauth/token"
        bound = await oauth.token(
            basic=("service/etl", text), grant_type="client_credentials", dpop=proof(key, endpoint)
        )
        scout, _ = oauth.key("Agent", "scout")
        assert (await oauth.exchange(bound.token, scout)).error == (400, "invalid_request")
        other = ECKey.generate_key("P-256")
        stolen = await oauth.exchange(bound.token, scout, dpop=proof(other, endpoint))
        assert stolen.error == (400, "invalid_request")
        said = await oauth.exchange(bound.token, scout, dpop=proof(key, endpoint))
        assert (said.json["token_type"], claims_of(said.token)["cnf"]) == ("DPoP", {"jkt": key.thumbprint()})


class TestAncestors:
    async def test_revoking_any_of_them_ends_the_token_and_its_exchange(self, oauth: OAuth) -> None:
        services = oauth.plane.services
        scout, record = oauth.key("Agent", "scout")
        mapper, _ = oauth.key("Agent", "mapper")
        gate = oauth.gate()
        later = services.clock.now() + timedelta(hours=1)

        async def chain() -> tuple[str, str, str]:
            user = oauth.mint()
            first = (await oauth.exchange(user, scout)).token
            return user, first, (await oauth.exchange(first, mapper, "agent/mapper")).token

        def inactive(text: str) -> None:
            services.directory.apply(parse(text, "x"))

        for end in (
            lambda user, _first: services.directory.revoke_token(claims_of(user)["jti"], later),
            lambda _user, first: services.directory.revoke_token(claims_of(first)["jti"], later),
            lambda _user, _first: inactive("agents: { scout: { owner: dana, active: false } }"),
            lambda _user, _first: inactive("agents: { scout: { owner: dana, active: true } }\n"
                                           "users: { omar: { active: false } }"),  # mapper's owner
            lambda _user, _first: (inactive("users: { omar: {} }"), services.directory.revoke_key(record.id)),
        ):  # fmt: skip
            user, first, token = await chain()
            caller = await oauth.caller(token, gate=gate)
            assert caller.actors == (MAPPER, SCOUT)
            end(user, first)
            assert not gate.still_valid(caller)
            with pytest.raises(UnauthenticatedError):
                await oauth.caller(token, gate=gate)
            third, _ = oauth.key("Agent", "third")
            assert (await oauth.exchange(token, third, "agent/third")).error == (400, "invalid_request")
            inactive("agents: { scout: { owner: dana, active: true } }\nusers: { omar: { active: true } }")

    async def test_an_agent_may_give_its_token_back(self, oauth: OAuth) -> None:
        scout, _ = oauth.key("Agent", "scout")
        token = (await oauth.exchange(oauth.mint(), scout)).token
        said = await oauth.post(
            "/oauth/revoke", {"token": token}, authorization=basic_of("agent/scout", scout)
        )
        assert said.status == 200
        with pytest.raises(UnauthenticatedError):
            await oauth.caller(token)

    async def test_an_expired_token_is_exchanged_for_nothing(self, oauth: OAuth) -> None:
        key, _ = oauth.key("Agent", "scout")
        services = oauth.plane.services
        soon = services.clock.now() + timedelta(seconds=2)
        user = services.issuer.issue(Granted(principal=DANA, client="x", audience=GATE, until=soon))
        async with asyncio.timeout(30):
            while (await oauth.exchange(user.text.reveal(), key)).status == 200:
                await asyncio.sleep(0.1)
        assert (await oauth.exchange(user.text.reveal(), key)).error == (400, "invalid_request")
