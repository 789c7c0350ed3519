"""Every way to be turned away: exact answer, nothing upstream, exactly one record."""

from __future__ import annotations

import json

import pytest

from doorward.core.decision import Decision, Effect
from doorward.core.errors import UnauthenticatedError, UnavailableError
from doorward.core.identity import Bounds, Caller
from doorward.core.model import Entity, EntityUid
from doorward.core.obligation import Budget, Cap, Limit, Mask, Notify, ReadOnly, StepUp

DANA = EntityUid.of("User", "dana")
SCOUT = EntityUid.of("Agent", "scout")
MODEL = EntityUid.of("Model", "llm/smollm2")
SECRET = EntityUid.of("Model", "llm/secret")


def header(answer, name):
    return next((value for key, value in answer.headers if key.lower() == name.lower()), None)


async def test_what_no_policy_permits_is_denied_with_what_may_be_told(stage):
    answer, body = await stage.play()
    told = json.loads(body)
    assert answer.status == 403
    assert told["code"] == "denied"
    assert told["detail"] == "Models of this kind need a managed device."
    assert told["would_allow"] == [{"say": "show your device's certificate"}]
    assert told["request_id"] == header(answer, "Doorward-Request-Id")
    assert "forbid-it" not in body.decode()
    assert stage.diary == ["record:decision:deny:denied"]
    record = stage.log.records[0]
    assert (record.principal, record.action, record.resource) == (str(DANA), "invoke", str(MODEL))
    assert record.determining == ("forbid-it",)
    assert record.policy_decision == "deny"
    assert record.context["network"]["zone"] == "office"
    assert record.inputs == "sha256:inputs"


async def test_what_may_not_be_seen_is_answered_as_the_upstream_does(stage):
    stage.point.hidden.add(SECRET)
    answer, body = await stage.play(body=b'{"model":"secret"}')
    assert (answer.status, body) == (404, b'{"error":"no such model"}')
    assert stage.diary == ["record:decision:deny:not_found"]


async def test_a_hidden_name_under_a_visible_one_is_refused_as_a_missing_one_is(stage):
    parent = EntityUid.of("Model", "llm")
    stage.point.entities[parent] = Entity(parent, {})
    stage.point.hidden.add(SECRET)
    hidden, hidden_body = await stage.play(body=b'{"model":"secret"}')
    missing, missing_body = await stage.play(body=b'{"model":"absent"}')
    told = [json.loads(body) for body in (hidden_body, missing_body)]
    assert hidden.status == missing.status == 403
    assert [t.pop("resource") for t in told] == ['Model::"llm/secret"', 'Model::"llm/absent"']
    assert [t.pop("request_id") for t in told]
    assert told[0] == told[1]
    # The record tells what was really asked and decided.
    assert stage.log.records[0].resource == 'Model::"llm/secret"'


async def test_one_denied_name_among_several_denies_all(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    answer, _ = await stage.play(body=b'{"model":"smollm2,other"}')
    assert answer.status == 403
    assert [c.decision for c in stage.log.records[0].checks] == ["allow", "deny"]
    assert stage.upstream.seen == []


async def test_a_hidden_name_among_visible_ones_hides_them_all(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.point.hidden.add(SECRET)
    answer, _ = await stage.play(body=b'{"model":"smollm2,secret"}')
    assert answer.status == 404


async def test_a_request_that_names_nothing_is_denied(stage):
    answer, _ = await stage.play(method="GET", path="/llm/nothing")
    assert answer.status == 403
    assert stage.upstream.seen == []


async def test_an_unknown_route_is_denied_and_recorded(stage):
    answer, body = await stage.play(method="DELETE", path="/llm/everything")
    assert answer.status == 403
    assert json.loads(body)["code"] == "denied"
    assert stage.diary == ["record:decision:deny:denied"]
    assert stage.log.records[0].principal == str(DANA)


async def test_an_unknown_upstream_is_not_found_and_recorded(stage):
    answer, _ = await stage.play(path="/elsewhere/invoke")
    assert answer.status == 404
    assert stage.diary == ["record:decision:deny:not_found"]


async def test_an_unknown_upstream_is_not_found_without_a_credential_too(stage):
    stage.authenticator.fault = UnauthenticatedError("no credential")
    answer, _ = await stage.play(path="/metrics")
    assert answer.status == 404


async def test_without_a_credential_the_answer_is_a_challenge(stage):
    stage.authenticator.fault = UnauthenticatedError("no credential was sent")
    answer, body = await stage.play()
    assert answer.status == 401
    assert header(answer, "WWW-Authenticate") == 'Bearer realm="doorward"'
    assert json.loads(body)["code"] == "unauthenticated"
    assert stage.diary == ["record:decision:deny:unauthenticated"]


async def test_the_exact_fault_of_a_credential_is_recorded_but_not_told(stage):
    fault = UnauthenticatedError("the credential does not verify")
    fault.reason = "unknown_key"
    stage.authenticator.fault = fault
    _, body = await stage.play()
    assert b"unknown_key" not in body
    assert stage.log.records[0].request["reason"] == "unknown_key"


async def test_a_body_that_is_not_json_is_400_and_stays_inside(stage):
    answer, _ = await stage.play(body=b"not json")
    assert answer.status == 400
    assert stage.upstream.seen == []


async def test_a_body_declared_too_large_is_refused_before_it_is_read(build_stage):
    stage = build_stage(max_json_body=10)
    request = stage.request(body=b"x" * 11)
    answer = await stage.flow.handle(request)
    assert answer.status == 413
    assert request.body.read == 0


async def test_a_body_that_grows_too_large_is_refused_when_it_does(build_stage):
    stage = build_stage(max_json_body=10)
    request = stage.request(body=b"x" * 11)
    headers = tuple(pair for pair in request.headers if pair[0] != "content-length")
    request = type(request)(
        **{f: getattr(request, f) for f in request.__struct_fields__} | {"headers": headers}
    )
    answer = await stage.flow.handle(request)
    assert answer.status == 413


async def test_a_purpose_that_is_not_hers_is_denied_and_never_reaches_context(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    answer, body = await stage.play(headers=(("doorward-purpose", "espionage"),))
    told = json.loads(body)
    assert answer.status == 403
    assert "Use one of your own purposes: fraud-model, marketing" in told["detail"]
    assert "espionage" not in body.decode()
    assert stage.point.asked == []
    assert stage.diary == ["record:decision:deny:denied"]


async def test_her_own_purpose_reaches_context(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.answers(b"hi")
    answer, _ = await stage.play(headers=(("doorward-purpose", "fraud-model"),))
    assert answer.status == 200
    assert stage.point.asked[0].context.purpose == "fraud-model"
    assert stage.log.records[0].purpose == "fraud-model"


async def test_a_bound_purpose_cannot_be_overridden_by_a_header(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.authenticator.caller = Caller(DANA, "key-2", "key", bound_purpose="marketing")
    answer, _ = await stage.play(headers=(("doorward-purpose", "fraud-model"),))
    assert answer.status == 400
    assert stage.upstream.seen == []


async def test_a_purpose_she_lost_does_not_live_on_in_her_key(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.authenticator.caller = Caller(DANA, "key-2", "key", bound_purpose="retired")
    answer, _ = await stage.play()
    assert answer.status == 403


async def test_every_agent_of_the_chain_must_be_allowed_too(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.authenticator.caller = Caller(DANA, "token-1", "token", actors=(SCOUT,))
    answer, _ = await stage.play()
    assert answer.status == 403
    user, agent = stage.point.asked
    assert (user.context.actor, user.context.depth) == (SCOUT, 1)
    assert (agent.principal, agent.context.actor, agent.context.depth) == (SCOUT, None, 1)
    assert agent.context.environment == EntityUid.of("Environment", "production")


async def test_an_agent_on_its_own_is_held_to_what_its_owner_is_forbidden(stage):
    stage.authenticator.caller = Caller(SCOUT, "key-1", "api-key")
    stage.point.entities[SCOUT] = Entity(SCOUT, {"active": True, "risk": 0, "owner": DANA})
    stage.point.allow(SCOUT, "invoke", MODEL)
    # That nothing permits it to her is no forbid.
    stage.point.allowed[str(DANA), "invoke", str(MODEL)] = Decision(Effect.DENY)
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200
    stage.point.allowed[str(DANA), "invoke", str(MODEL)] = Decision(Effect.DENY, determining=("never",))
    answer, body = await stage.play()
    assert answer.status == 403
    assert stage.log.records[-1].determining == ("agent:owner", "never")
    assert b"dana" not in body


async def test_a_token_bounded_to_fewer_words_is_not_used_for_more(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.authenticator.caller = Caller(DANA, "token-1", "token", bounds=(Bounds(max_tokens=5),))
    answer, _ = await stage.play()
    assert answer.status == 403
    assert stage.log.records[-1].determining == ("credential:bounds",)


async def test_obligations_of_user_and_agent_join(stage):
    stage.point.allow(DANA, "invoke", MODEL, Mask(("email",)))
    stage.point.allow(SCOUT, "invoke", MODEL, Cap("max_tokens", 5))
    stage.authenticator.caller = Caller(DANA, "token-1", "token", actors=(SCOUT,))
    stage.answers(b"hi")
    answer, _ = await stage.play()
    assert answer.status == 200
    assert {o["type"] for o in stage.log.records[0].obligations} == {"mask", "cap"}


@pytest.mark.parametrize("obligation", [Notify("owner"), Budget("b", 10, "tokens", 60)])
async def test_an_obligation_that_cannot_be_kept_refuses(stage, obligation):
    stage.point.allow(DANA, "invoke", MODEL, obligation)
    answer, _ = await stage.play()
    assert answer.status == 403
    assert stage.upstream.seen == []
    record = stage.log.records[0]
    assert (record.decision, record.policy_decision) == ("deny", "allow")


async def test_an_obligation_the_protocol_does_not_keep_refuses(stage):
    stage.adapter.kept = frozenset()
    stage.point.allow(DANA, "invoke", MODEL, Mask(("email",)))
    answer, _ = await stage.play()
    assert answer.status == 403


async def test_readonly_refuses_what_writes(stage):
    stage.point.allow(DANA, "create", MODEL, ReadOnly())
    answer, _ = await stage.play(method="PUT", path="/llm/upload", body=b"weights")
    assert answer.status == 403


async def test_an_unmet_step_up_asks_for_a_stronger_sign_in(stage):
    stage.point.allow(DANA, "invoke", MODEL, StepUp("aal2", 900))
    answer, body = await stage.play()
    assert answer.status == 401
    assert header(answer, "WWW-Authenticate").startswith('Bearer error="insufficient_user_authentication"')
    assert 'acr_values="aal2", max_age="900"' in header(answer, "WWW-Authenticate")
    assert json.loads(body)["code"] == "insufficient_user_authentication"
    assert stage.upstream.seen == []


async def test_a_fresh_second_factor_meets_the_step_up(stage):
    stage.point.allow(DANA, "invoke", MODEL, StepUp("aal2", 900))
    now = stage.clock.now()
    stage.authenticator.caller = Caller(DANA, "s", "token", acr="aal2", signed_in_at=now, mfa_at=now)
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200


async def test_the_last_unit_of_a_limit_is_usable_and_the_next_is_429(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 2, 60))
    statuses = []
    for _ in range(3):
        stage.answers(b"hi")
        answer, _ = await stage.play()
        statuses.append(answer.status)
    assert statuses == [200, 200, 429]
    assert header(answer, "Retry-After") == "60"
    last = stage.log.records[-1]
    assert (last.code, last.decision, last.policy_decision) == ("limit_exceeded", "deny", "allow")
    assert len(stage.upstream.seen) == 2
    stage.clock.advance(60)
    assert (await stage.play())[0].status == 200


async def test_names_under_one_asset_share_its_counter(stage):
    stage.point.covers = {"llm/a": "llm", "llm/b": "llm", "llm/c": "elsewhere"}
    for name in "abc":
        stage.point.allow(DANA, "invoke", EntityUid.of("Model", f"llm/{name}"), Limit("slow", 1, 60))
        stage.answers(b"hi")
    statuses = [(await stage.play(body=b'{"model":"%s"}' % name))[0].status for name in (b"a", b"b", b"c")]
    assert statuses == [200, 429, 200]


async def test_what_cannot_be_kept_uses_nothing_of_a_limit(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60), Notify("owner"))
    await stage.play()
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60))
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200


async def test_denials_use_nothing_of_a_limit(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60))
    for _ in range(5):
        await stage.play(body=b'{"model":"smollm2,other"}')
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200


async def test_a_flood_of_unknown_callers_is_one_record_and_one_number(stage):
    stage.authenticator.fault = UnauthenticatedError("no credential was sent")
    for _ in range(500):
        assert (await stage.play())[0].status == 401
    assert stage.diary == ["record:decision:deny:unauthenticated"]
    stage.clock.advance(1)
    stage.flow.flush_floods()
    assert len(stage.log.records) == 2
    assert stage.log.records[1].request["repeated"] == 499
    assert stage.log.records[1].request["sources"][0]["ip"] == "10.0.0.7"


async def test_a_known_caller_is_always_recorded(stage):
    for _ in range(5):
        await stage.play()
    assert stage.diary == ["record:decision:deny:denied"] * 5


# Fail directions (DESIGN §4)


async def test_without_a_bundle_everything_is_503(stage):
    stage.point.gone = True
    answer, _ = await stage.play()
    assert answer.status == 503
    assert stage.upstream.seen == []


async def test_what_is_known_too_long_ago_decides_nothing(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.stale = 86_401.0
    answer, _ = await stage.play()
    assert answer.status == 503
    assert stage.upstream.seen == []


async def test_a_fault_of_the_evaluator_denies_with_the_error_in_the_record(stage):
    stage.point.fault = RecursionError("too deep: secret-value")
    answer, body = await stage.play()
    assert answer.status == 403
    assert b"secret-value" not in body
    assert stage.log.records[0].errors == ("evaluator: RecursionError",)


async def test_without_a_durable_record_nothing_is_forwarded(stage):
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60))
    stage.log.full = True
    answer, body = await stage.play()
    assert answer.status == 503
    assert json.loads(body)["code"] == "audit_unavailable"
    assert stage.diary == []
    # What was reserved for it is free again.
    stage.log.full = False
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200


async def test_a_denial_that_cannot_be_recorded_is_503(stage):
    stage.log.full = True
    answer, _ = await stage.play()
    assert answer.status == 503


async def test_counters_that_are_gone_refuse_limited_requests_only(stage):
    async def gone(_keys):
        raise UnavailableError("the counters are gone")

    stage.limits.reserve = gone
    stage.point.allow(DANA, "invoke", MODEL, Limit("slow", 1, 60))
    assert (await stage.play())[0].status == 503
    stage.point.allow(DANA, "invoke", MODEL)
    stage.answers(b"hi")
    assert (await stage.play())[0].status == 200


async def test_a_fault_of_the_protocol_file_is_500_and_says_nothing(stage):
    def broken(*_):
        raise KeyError("internal-detail")

    stage.adapter.name = broken
    answer, body = await stage.play()
    assert answer.status == 500
    assert b"internal-detail" not in body
    assert stage.diary == ["record:decision:deny:internal"]


async def test_a_caller_revoked_while_her_body_arrived_is_denied(stage):
    stage.point.allow(DANA, "invoke", MODEL)
    stage.authenticator.valid = False
    answer, _ = await stage.play()
    assert answer.status == 403
    assert stage.upstream.seen == []


async def test_a_request_that_names_too_much_is_413_and_decides_nothing(stage):
    names = ",".join(f"m{number}" for number in range(1001))
    answer, _ = await stage.play(body=json.dumps({"model": names}).encode())
    assert answer.status == 413
    assert stage.point.asked == []
    assert stage.upstream.seen == []
