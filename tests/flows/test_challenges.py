"""What a stock OAuth client is told: where to get a token, of which kind (RFC 9728, 9449, 9470)."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from doorward.core.errors import UnauthenticatedError
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.core.obligation import StepUp
from doorward.gateway.metadata import PATH, ProtectedResources
from doorward.identity import refusals

GATE = "https://gate.example"
IDP = "https://idp.example"
DANA = EntityUid.of("User", "dana")
MODEL = EntityUid.of("Model", "llm/smollm2")


@pytest.fixture
def told(build_stage: Any) -> Any:
    resources = ProtectedResources(
        GATE,
        upstreams=["llm", "tools"],
        authorization_servers=[IDP],
        proof_algorithms=["ES256"],
        client_certificates=True,
    )
    return build_stage(resources=resources)


def header(answer: Any, name: str) -> str | None:
    return next((value for key, value in answer.headers if key.lower() == name.lower()), None)


@pytest.mark.parametrize("resource", ["", "/llm", "/tools", "/tools/mcp"])
async def test_the_metadata_is_answered_without_a_credential_and_names_what_was_asked_for(
    told: Any, resource: str
) -> None:
    told.authenticator.fault = UnauthenticatedError("nobody")
    answer, body = await told.play(method="GET", path=f"{PATH}{resource}")
    document = json.loads(body)
    assert (answer.status, document["resource"]) == (200, f"{GATE}{resource}")
    assert document["authorization_servers"] == [IDP]
    assert document["bearer_methods_supported"] == ["header"]
    assert document["dpop_signing_alg_values_supported"] == ["ES256"]
    assert document["tls_client_certificate_bound_access_tokens"] is True
    assert header(answer, "doorward-request-id")
    # It is no request to an upstream: nothing is decided, forwarded or recorded.
    assert told.diary == []


@pytest.mark.parametrize("resource", ["/nothing", "/llm/deeper", "/llm/", "x", "//llm", "/tools/mcp/x"])
async def test_metadata_of_what_is_no_resource_does_not_exist(told: Any, resource: str) -> None:
    answer, _ = await told.play(method="GET", path=f"{PATH}{resource}")
    assert answer.status == 404


async def test_metadata_is_only_read(told: Any) -> None:
    answer, _ = await told.play(method="POST", path=PATH)
    assert (answer.status, header(answer, "allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "resource"),
    [("/llm/invoke", "/llm"), ("/tools/mcp", "/tools/mcp"), ("/tools/mcp/x", "/tools")],
)
async def test_every_challenge_points_to_the_metadata_of_what_was_asked_for(
    told: Any, path: str, resource: str
) -> None:
    told.authenticator.fault = refusals.no_credential()
    challenge = ""
    if path.startswith("/llm"):
        answer, _ = await told.play(path=path)
        assert answer.status == 401
        challenge = header(answer, "www-authenticate") or ""
    else:
        challenge = told.flow._resources.pointed_to(refusals.no_credential().challenge, path)  # noqa: SLF001 -- no tools upstream on this stage
    assert challenge.startswith(f'Bearer resource_metadata="{GATE}{PATH}{resource}", realm="doorward", DPoP ')


async def test_a_wanted_nonce_comes_with_the_answer_whatever_the_protocol(told: Any) -> None:
    told.authenticator.fault = refusals.nonce_wanted("n-1")
    answer, _ = await told.play()
    assert header(answer, "dpop-nonce") == "n-1"
    challenge = header(answer, "www-authenticate") or ""
    assert challenge.startswith(f'DPoP resource_metadata="{GATE}{PATH}/llm"')
    assert 'error="use_dpop_nonce"' in challenge


@pytest.mark.parametrize(("shown_by", "scheme"), [("", "Bearer"), ("dpop", "DPoP")])
async def test_an_unmet_step_up_asks_for_acr_and_age_in_the_scheme_of_the_token(
    told: Any, shown_by: str, scheme: str
) -> None:
    told.authenticator.caller = Caller(DANA, "j", "token", shown_by=shown_by)
    told.point.allow(DANA, "invoke", MODEL, StepUp("aal2", 900))
    answer, _ = await told.play()
    assert answer.status == 401
    challenge = header(answer, "www-authenticate") or ""
    assert challenge.startswith(f"{scheme} resource_metadata=")
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'acr_values="aal2"' in challenge
    assert 'max_age="900"' in challenge


async def test_a_sign_in_counts_only_while_its_source_is_believed(told: Any) -> None:
    now = told.clock.now()
    caller = Caller(
        DANA, "j", "token", acr="aal2", mfa_at=now, signed_in_at=now, vouched_by=IDP, vouched_at=now,
        vouched_until=now + timedelta(seconds=60),
    )  # fmt: skip
    told.authenticator.caller = caller
    told.point.allow(DANA, "invoke", MODEL, StepUp("aal2"))
    told.answers(b"hello")
    assert (await told.play())[0].status == 200
    fresh = told.log.records[0]
    assert (fresh.session["source"], fresh.session["stale"], fresh.context["session"]["mfa"]) == (
        IDP,
        False,
        True,
    )
    told.clock.advance(60)
    assert (await told.play())[0].status == 401
    stale = told.log.records[-1]
    assert (stale.session["stale"], stale.session["source_age"], stale.session["acr"]) == (True, 60, "")
    assert (stale.context["session"]["mfa"], "mfa_age" in stale.context["session"]) == (False, False)
    assert stale.context["session"]["age"] > 10**9
