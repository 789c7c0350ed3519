"""Claims that become attributes, and people who become somebody: only what the settings map, told once."""

# ruff: noqa: PLR0913, PLR0917 -- fixtures are arguments
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from doorward.core.clock import ManualClock
from doorward.core.errors import ConflictError, UnavailableError
from doorward.core.model import EntityUid
from doorward.identity.authenticate import Authenticator
from doorward.settings import IssuerSettings

IDP = "https://idp.example"
DANA = EntityUid.of("User", "dana")


class Desk:
    """The port Arrivals: links newcomers as the directory would."""

    def __init__(self, registry: Any) -> None:
        self.registry, self.told = registry, []
        self.fault: Exception | None = None
        self.links: dict[tuple[str, str], EntityUid] = {}

    async def announce(self, token: str) -> None:
        self.told.append(token)
        if self.fault is not None:
            raise self.fault
        self.registry.links.update(self.links)
        self.registry.active.update(self.links.values())


@pytest.fixture
def desk(registry: Any) -> Desk:
    return Desk(registry)


@pytest.fixture
def mapping(make_gate: Callable[..., Authenticator], desk: Desk) -> Authenticator:
    return make_gate(map={"groups": "groups", "department": "dept"}, arrivals=desk)


@pytest.fixture
def provisioning(make_gate: Callable[..., Authenticator], desk: Desk) -> Authenticator:
    desk.links[IDP, "00u9"] = EntityUid.of("User", "00u9")
    return make_gate(provision=True, map={"name": "preferred"}, arrivals=desk)


async def test_what_is_mapped_is_told_once_and_again_when_it_changes(
    mapping: Authenticator, bearer: Any, idp: Any, desk: Desk
) -> None:
    same = [idp.token(groups=["b", "a"], dept="risk"), idp.token(groups=["a", "b"], dept="risk")]
    for token in (*same, *same):
        assert (await mapping.authenticate(bearer(token))).principal == DANA
    assert desk.told == same[:1]
    other = idp.token(groups=["a"], dept="risk")
    await mapping.authenticate(bearer(other))
    assert desk.told == [same[0], other]


async def test_it_is_told_again_before_it_is_too_old(
    make_gate: Callable[..., Authenticator], bearer: Any, idp: Any, desk: Desk, clock: ManualClock
) -> None:
    gate = make_gate(map={"groups": "groups"}, arrivals=desk, max_age=100)
    await gate.authenticate(bearer(idp.token()))
    clock.advance(50)
    await gate.authenticate(bearer(idp.token()))
    assert len(desk.told) == 2


async def test_without_a_mapping_nothing_is_told_whatever_a_token_says(
    make_gate: Callable[..., Authenticator], bearer: Any, idp: Any, desk: Desk
) -> None:
    gate = make_gate(arrivals=desk)
    await gate.authenticate(bearer(idp.token(groups=["admins"], roles=["admin"], clearance=3)))
    assert desk.told == []


@pytest.mark.parametrize("groups", ["a", 7, {"a": 1}, [1], [""], ["x" * 256], ["a\n"], ["g"] * 201])
async def test_a_claim_of_another_shape_is_refused_not_guessed(
    mapping: Authenticator, refusal: Any, bearer: Any, idp: Any, groups: Any, desk: Desk
) -> None:
    assert (await refusal(bearer(idp.token(groups=groups)), mapping)).reason == "mapped_claim_invalid"
    assert desk.told == []


async def test_a_missing_claim_means_no_groups_not_the_old_ones(
    mapping: Authenticator, bearer: Any, idp: Any, desk: Desk
) -> None:
    await mapping.authenticate(bearer(idp.token(groups=["a"])))
    await mapping.authenticate(bearer(idp.token()))
    assert len(desk.told) == 2


async def test_somebody_unknown_becomes_somebody_only_where_the_issuer_may_provision(
    provisioning: Authenticator, mapping: Authenticator, refusal: Any, bearer: Any, idp: Any, desk: Desk
) -> None:
    token = idp.token(sub="00u9")
    assert (await refusal(bearer(token), mapping)).reason == "identity_not_linked"
    assert desk.told == []
    assert (await provisioning.authenticate(bearer(token))).principal == EntityUid.of("User", "00u9")
    assert desk.told == [token]


async def test_a_control_plane_that_is_gone_keeps_newcomers_out_and_lets_known_people_in(
    provisioning: Authenticator, bearer: Any, idp: Any, desk: Desk
) -> None:
    desk.fault = UnavailableError("gone")
    with pytest.raises(UnavailableError):
        await provisioning.authenticate(bearer(idp.token(sub="00u9")))
    assert (await provisioning.authenticate(bearer(idp.token()))).principal == DANA
    desk.fault = None
    assert await provisioning.authenticate(bearer(idp.token(sub="00u9")))


async def test_what_was_refused_is_not_told_again_for_a_while(
    provisioning: Authenticator, refusal: Any, bearer: Any, idp: Any, desk: Desk, clock: ManualClock
) -> None:
    desk.fault = ConflictError("taken")
    for _ in range(5):
        error = await refusal(bearer(idp.token(sub="00u9")), provisioning)
        assert error.reason == "identity_not_linked"
    assert len(desk.told) == 1
    clock.advance(10)
    await refusal(bearer(idp.token(sub="00u9")), provisioning)
    assert len(desk.told) == 2


@pytest.mark.parametrize("name", ["roles", "clearance", "active", "risk", "purposes", "projects", "id"])
def test_what_gives_rights_can_never_be_mapped(name: str) -> None:
    with pytest.raises(ValidationError):
        IssuerSettings(issuer=IDP, audience="x", map={name: "claim"})


def test_a_misspelt_trust_is_an_error_not_a_weaker_setting() -> None:
    with pytest.raises(ValidationError):
        IssuerSettings(issuer=IDP, audience="x", trust=("arc",))
