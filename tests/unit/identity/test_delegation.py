"""A chain never exceeds its parent in anything, whoever asks for what; checked through signed tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidRequestError
from doorward.core.identity import Act, Bounds, Caller, Descent, SignOut
from doorward.core.ids import IdSource
from doorward.core.model import Action, EntityUid
from doorward.core.wire import Request
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator
from doorward.identity.custody import Custodian
from doorward.identity.delegation import ActingCredential, Parent, Wanted, delegated
from doorward.identity.issuer import Granted, LocalIssuer
from doorward.identity.local_claims import PRIVATE, nested
from doorward.identity.own_tokens import OwnTokens
from doorward.identity.strict_jose import TokenFaultError

CONTROL, GATE = "http://127.0.0.1:8641", "https://gate.example"
START = datetime.fromisoformat("2026-11-23T12:00:00+00:00")
DANA = EntityUid.of("User", "dana")
AGENTS = tuple(EntityUid.of("Agent", name) for name in ("a", "b", "c", "d"))
NAMES = ("llm/tiny", "llm/tiny/1", "llm/tiny-2", "store/a", "store/a/b", "store/b")
ASSETS = tuple(EntityUid.of(kind, name) for kind in ("Model", "Dataset", "Tool") for name in NAMES)
ACTIONS = ("view", "invoke", "read", "call", "export")
Ask = Callable[..., Request]

subsets = st.lists(st.sampled_from(ACTIONS), unique=True, max_size=3).map(tuple)
bounds_ = st.builds(
    Bounds,
    actions=subsets,
    upstreams=st.lists(st.sampled_from(("llm", "store")), unique=True, max_size=2).map(tuple),
    resources=st.lists(st.sampled_from(ASSETS), unique=True, max_size=3).map(tuple),
    max_tokens=st.none() | st.integers(0, 500),
    arguments=st.dictionaries(
        st.sampled_from(("path", "mode")), st.sampled_from(("/a", "ro")), max_size=2
    ).map(lambda found: tuple(sorted(found.items()))),
)
hops = st.lists(
    st.tuples(
        st.sampled_from(AGENTS),
        st.none() | bounds_,  # what is asked for
        st.lists(bounds_, max_size=2).map(tuple),  # what the agent's own credential is bound to
        st.none() | st.integers(-100, 2000),  # when that ends, in seconds
        st.sampled_from((GATE, f"{GATE}/llm", f"{GATE}/llm/mcp", f"{GATE}/store", f"{GATE}x", CONTROL)),
        st.none() | st.sampled_from(("fraud", "sales")),
    ),
    max_size=5,
)


class Chain:
    """An issuer, and what reads its tokens back as the control plane and a gateway do."""

    def __init__(self, folder: str, clock: ManualClock) -> None:
        self.clock = clock
        custodian = Custodian.open("file:keys", Path(folder))
        self.issuer = LocalIssuer(custodian, issuer=CONTROL, audience=GATE, clock=clock, ids=IdSource(clock))
        self.own = OwnTokens(self.issuer.jwks, audiences=(GATE, CONTROL), clock=clock)

    async def parent(self, text: str) -> Parent:
        shown = await self.own.read(text)
        assert shown.token.principal is not None
        return Parent(shown.token, shown.token.principal, shown.audience)


@cache
def shared_folder() -> str:
    """Return one place for keys: making them is slow, and no example changes them."""
    return tempfile.mkdtemp(prefix="dw-chain")


def allows(bounds: tuple[Bounds, ...], action: str, asset: EntityUid, tokens: int | None, said: Any) -> bool:
    return all(
        one.permits(action, asset) and one.holds_to(action, max_tokens=tokens, arguments=said)
        for one in bounds
    )


def reach(bounds: tuple[Bounds, ...]) -> set[Any]:
    """Return every question of a small world that lies within bounds."""
    said = (None, {}, {"path": "/a"}, {"path": "/a", "mode": "ro"})
    return {
        (action, asset, tokens, index)
        for action in ACTIONS
        for asset in ASSETS
        for tokens in (None, 0, 100, 501)
        for index, arguments in enumerate(said)
        if allows(bounds, action, asset, tokens, arguments)
    }


@settings(max_examples=150, deadline=None)
@given(
    hops=hops,
    own=st.lists(bounds_, max_size=1).map(tuple),
    acr=st.sampled_from(("", "aal2")),
    purpose=st.none() | st.just("fraud"),
)
async def test_a_chain_never_exceeds_its_parent(
    hops: list[Any], own: tuple[Bounds, ...], acr: str, purpose: str | None
) -> None:
    chain = Chain(shared_folder(), ManualClock(START))
    signed_in = chain.clock.now() - timedelta(seconds=40)
    text = chain.issuer.issue(
        Granted(
            principal=DANA, client="doorward-cli", audience=GATE, purpose=purpose, bounds=own,
            signed_in_at=signed_in, acr=acr, amr=("mfa",) if acr else (),
        )
    ).text.reveal()  # fmt: skip
    for agent, wanted, held, ends, audience, for_purpose in hops:
        parent = await chain.parent(text)
        acting = ActingCredential(
            agent=agent, client=f"agent/{agent.id}", keys=(f"key-{agent.id}",), bounds=held,
            purpose=for_purpose, until=None if ends is None else START + timedelta(seconds=ends),
        )  # fmt: skip
        asked = Wanted(audience=audience, bounds=wanted)
        try:
            granted = delegated(parent, acting=acting, wanted=asked, now=chain.clock.now())
            text = chain.issuer.issue(granted).text.reveal()
        except (TokenFaultError, InvalidRequestError):
            continue  # too deep, a loop, elsewhere, over, for another purpose
        child, old = await chain.parent(text), parent.token
        new = child.token
        assert new.principal == DANA
        assert new.expires <= old.expires
        assert ends is None or new.expires <= START + timedelta(seconds=ends)
        assert child.audience == parent.audience or child.audience.startswith(f"{parent.audience}/")
        assert reach(new.bounds) <= reach(old.bounds) & reach(held)
        assert wanted is None or reach(new.bounds) <= reach((wanted,))
        assert new.actors == (agent, *old.actors)
        assert len(new.actors) <= 3
        assert len({DANA, *new.actors}) == 1 + len(new.actors)
        assert (new.signed_in_at, new.mfa_at, new.acr) == (signed_in, old.mfa_at, old.acr)
        assert new.purpose in ({old.purpose} if old.purpose else {None, for_purpose})
        assert new.descent is not None
        before = old.descent or Descent()
        assert {*before.tokens, old.jti} <= set(new.descent.tokens)
        assert {*before.keys, *acting.keys} <= set(new.descent.keys)
        assert all(act.until >= new.expires for act in new.descent.acts)
        chain.clock.advance(1)


@pytest.fixture
def chain(tmp_path: Path, clock: ManualClock) -> Chain:
    return Chain(str(tmp_path), clock)


@pytest.fixture
def world(registry: Any, clock: ManualClock) -> Any:
    """Let four agents be active, each with a key."""
    for agent in AGENTS:
        registry.active.add(agent)
        record, _ = api_keys.create(key_id=f"key-{agent.id}", subject=agent, now=clock.now())
        registry.keys.append(record)
    return registry


async def chained(chain: Chain, *agents: EntityUid, **more: Any) -> str:
    text = chain.issuer.issue(
        Granted(principal=DANA, client="doorward-cli", audience=GATE, **more)
    ).text.reveal()
    for agent in agents:
        acting = ActingCredential(agent=agent, client=agent.id, keys=(f"key-{agent.id}",))
        granted = delegated(
            await chain.parent(text), acting=acting, wanted=Wanted(audience=GATE), now=chain.clock.now()
        )
        text = chain.issuer.issue(granted).text.reveal()
    return text


@pytest.mark.usefixtures("world")
class TestAtAGateway:
    """From the snapshot and the public keys alone: nobody is called."""

    async def test_the_principal_stays_and_the_last_agent_acts(
        self, chain: Chain, world: Any, make_gate: Callable[..., Authenticator], bearer: Ask
    ) -> None:
        gate = make_gate(jwks=chain.issuer.jwks())
        caller = await gate.authenticate(bearer(await chained(chain, *AGENTS[:3])))
        assert (caller.principal, caller.actors) == (DANA, (AGENTS[2], AGENTS[1], AGENTS[0]))
        assert world.active

    @pytest.mark.parametrize(
        ("agents", "reason"),
        [
            (AGENTS, "chain_too_deep"),
            ((AGENTS[0], AGENTS[1], AGENTS[0]), "chain_has_a_loop"),
            ((DANA,), "chain_has_a_loop"),
            ((EntityUid.of("Service", "etl"),), "actor_is_no_agent"),
            ((EntityUid.of("User", "omar"),), "actor_is_no_agent"),
        ],
    )
    async def test_a_chain_that_may_not_be_is_401_even_with_our_own_signature(  # noqa: PLR0913, PLR0917 -- fixtures
        self,
        chain: Chain,
        make_gate: Callable[..., Authenticator],
        bearer: Ask,
        refusal: Any,
        agents: tuple[EntityUid, ...],
        reason: str,
    ) -> None:
        ends = chain.clock.now() + timedelta(seconds=600)
        acts = tuple(Act(agent, chain.clock.now(), ends) for agent in agents)
        text = chain.issuer.issue(
            Granted(principal=DANA, client="x", audience=GATE, descent=Descent(acts=acts))
        ).text.reveal()
        error = await refusal(bearer(text), make_gate(jwks=chain.issuer.jwks()))
        assert (error.code, error.reason) == ("unauthenticated", reason)

    async def test_an_expired_hop_is_401_whatever_the_token_says_of_its_end(
        self, chain: Chain, make_gate: Callable[..., Authenticator], bearer: Ask, refusal: Any
    ) -> None:
        now = chain.clock.now()
        acts = (Act(AGENTS[0], now, now + timedelta(seconds=30)),)
        text = chain.issuer.issue(
            Granted(principal=DANA, client="x", audience=GATE, descent=Descent(acts=acts))
        ).text.reveal()
        gate = make_gate(jwks=chain.issuer.jwks())
        assert await gate.authenticate(bearer(text))
        chain.clock.advance(30)
        fresh = make_gate(jwks=chain.issuer.jwks())
        assert (await refusal(bearer(text), fresh)).reason == "hop_expired"

    @pytest.mark.parametrize(
        "tamper",
        [
            {"act": {"sub": 'Agent::"b"'}},
            {"act": {"sub": 'Agent::"a"', "act": {"sub": 'Agent::"b"'}}},
            {"act": {"sub": 'Agent::"a"', "iss": "https://evil.example"}},
            {"act": "Agent::a"},
            {"act": {}},
            {"act": []},
        ],
    )
    async def test_an_act_that_does_not_agree_with_the_hops_is_401(
        self,
        chain: Chain,
        make_gate: Callable[..., Authenticator],
        bearer: Ask,
        refusal: Any,
        tamper: dict[str, Any],
    ) -> None:
        now = int(chain.clock.now().timestamp())
        claims = {
            "iss": CONTROL, "sub": str(DANA), "aud": GATE, "client_id": "x", "iat": now, "exp": now + 60,
            "jti": "j", PRIVATE: {"hops": [] if tamper["act"] != {} else [{"since": now, "until": now + 60}]},
            **tamper,
        }  # fmt: skip
        text = chain.issuer._keys.newest().sign(claims, typ="at+jwt")  # noqa: SLF001 -- a token we would not make
        error = await refusal(bearer(text), make_gate(jwks=chain.issuer.jwks()))
        assert error.reason == "chain_invalid"

    async def test_any_ancestor_ends_all_that_came_of_it_for_requests_and_open_answers(
        self, chain: Chain, world: Any, make_gate: Callable[..., Authenticator], bearer: Ask, refusal: Any
    ) -> None:
        text = await chained(chain, AGENTS[0], AGENTS[1])
        gate = make_gate(jwks=chain.issuer.jwks())
        caller = await gate.authenticate(bearer(text))
        assert caller.descent is not None
        user, first = caller.descent.tokens[1], caller.descent.tokens[0]
        agent = AGENTS[0]
        out = SignOut(agent, before=chain.clock.now())

        def undo_key(key: Any) -> None:
            world.keys.append(key)

        def there() -> None:
            world.active.add(agent)

        removed = next(key for key in world.keys if key.id == "key-a")
        chain.clock.advance(1)
        hers = SignOut(DANA, before=chain.clock.now())
        steps: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
            ("ancestor_revoked", lambda: world.revoked.add(user), world.revoked.clear),
            ("ancestor_revoked", lambda: world.revoked.add(first), world.revoked.clear),
            ("token_revoked", lambda: world.revoked.add(caller.credential), world.revoked.clear),
            ("ancestor_key_revoked", lambda: world.keys.remove(removed), lambda: undo_key(removed)),
            ("ancestor_subject_inactive", lambda: world.active.remove(agent), there),
            ("actor_signed_out", lambda: world.sign_outs.update({agent: out}), world.sign_outs.clear),
            ("signed_out", lambda: world.sign_outs.update({DANA: hers}), world.sign_outs.clear),
            ("subject_inactive", lambda: world.active.remove(DANA), lambda: world.active.add(DANA)),
        ]  # fmt: skip
        for reason, end, restore in steps:
            assert gate.still_valid(caller)
            assert await gate.authenticate(bearer(text))
            end()
            assert not gate.still_valid(caller), reason
            assert (await refusal(bearer(text), gate)).reason == reason
            restore()

    async def test_what_the_agents_key_is_bound_to_holds_as_it_is_now(
        self, chain: Chain, world: Any, make_gate: Callable[..., Authenticator], bearer: Ask
    ) -> None:
        text = await chained(chain, AGENTS[0])
        gate = make_gate(jwks=chain.issuer.jwks())
        assert (await gate.authenticate(bearer(text))).bounds == ()
        narrowed = Bounds(actions=("view",))
        world.keys[:] = [
            msgspec.structs.replace(key, bounds=narrowed) if key.id == "key-a" else key for key in world.keys
        ]
        assert (await gate.authenticate(bearer(text))).bounds == (narrowed,)

    async def test_a_foreign_issuers_chain_is_not_believed(self, idp: Any, refusal: Any, bearer: Ask) -> None:
        for act in ({"sub": 'Agent::"a"'}, None, {}):
            assert (await refusal(bearer(idp.token(act=act)))).reason == "delegation_not_supported"


def test_nested_act_puts_the_present_actor_outside() -> None:
    assert nested((AGENTS[1], AGENTS[0])) == {"sub": 'Agent::"b"', "act": {"sub": 'Agent::"a"'}}
    assert nested(()) is None


def test_only_passkey_sign_ins_carry_mfa(chain: Chain) -> None:
    minted = chain.issuer.mint(DANA).text.reveal()
    assert chain.issuer.issuer == CONTROL
    assert "acr" not in minted


@pytest.mark.parametrize(
    "claims", [{"acr": "aal2"}, {"amr": ["mfa"]}, {"acr": "aal2", "amr": ["mfa", "hwk"]}]
)
async def test_a_minted_token_never_counts_as_mfa_even_if_it_says_so(
    chain: Chain, make_gate: Callable[..., Authenticator], bearer: Ask, claims: dict[str, Any]
) -> None:
    now = int(chain.clock.now().timestamp())
    said = {
        "iss": CONTROL, "sub": str(DANA), "aud": GATE, "client_id": "x", "iat": now, "exp": now + 60,
        "jti": "j", "auth_time": now, PRIVATE: {"minted": True}, **claims,
    }  # fmt: skip
    text = chain.issuer._keys.newest().sign(said, typ="at+jwt")  # noqa: SLF001 -- a token we would not make
    caller: Caller = await make_gate(jwks=chain.issuer.jwks()).authenticate(bearer(text))
    assert (caller.minted, caller.mfa_at, caller.acr) == (True, None, "")


async def test_a_sign_in_with_a_passkey_counts_as_mfa(
    chain: Chain, make_gate: Callable[..., Authenticator], bearer: Ask
) -> None:
    at = chain.clock.now() - timedelta(seconds=30)
    text = chain.issuer.issue(
        Granted(
            principal=DANA,
            client="doorward-cli",
            audience=GATE,
            signed_in_at=at,
            acr="aal2",
            amr=("hwk", "mfa"),
        )
    ).text.reveal()
    caller = await make_gate(jwks=chain.issuer.jwks()).authenticate(bearer(text))
    assert (caller.minted, caller.mfa_at, caller.signed_in_at, caller.acr) == (False, at, at, "aal2")


def test_actions_of_bounds_are_those_of_the_schema() -> None:
    assert set(ACTIONS) <= {action.value for action in Action}
