"""The OpenAI protocol file: what it names, what it refuses, what passes (attacks 40-45, 51, 56)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from doorward.core.decision import Change
from doorward.core.errors import InvalidRequestError, UnavailableError, UnsupportedMediaError
from doorward.gateway.adapter import BodyNeed, Refusal, UnknownRouteError
from doorward.gateway.protocols.openai import OpenAIAdapter
from doorward.settings import UpstreamSettings

SETTINGS = UpstreamSettings(name="llm", kind="openai", url="http://127.0.0.1:9001")
CHAT = "POST /v1/chat/completions"
HELLO: dict[str, Any] = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def llm(play: Any) -> Any:
    return play(OpenAIAdapter(SETTINGS))


def body(**more: Any) -> bytes:
    return json.dumps({**HELLO, **more}).encode()


@pytest.mark.parametrize(
    ("line", "document"),
    [
        (CHAT, HELLO),
        ("POST /v1/completions", {"model": "smollm2", "prompt": "hi"}),
        ("POST /v1/responses", {"model": "smollm2", "input": "hi"}),
        ("POST /v1/embeddings", {"model": "smollm2", "input": ["hi"]}),
    ],
)
def test_a_call_is_an_invocation_of_the_model_its_body_names(llm: Any, line: str, document: Any) -> None:
    assert llm.asks(line, json.dumps(document).encode()) == ['invoke Model::"llm/smollm2"']


def test_one_model_is_viewed_and_the_list_is_decided_name_by_name(llm: Any) -> None:
    assert llm.asks("GET /v1/models/smollm2") == ['view Model::"llm/smollm2"']
    assert llm.asks("GET /v1/models/org/model") == ['view Model::"llm/org/model"']
    naming = llm.name("GET /v1/models")
    assert naming.lists
    assert naming.asks == ()


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET /v1",
        "GET /health",
        "GET /metrics",
        "GET /props",
        "POST /props",
        "GET /slots",
        "GET /v1/models/",
        "POST /v1/models",
        "DELETE /v1/models/smollm2",
        "HEAD /v1/models",
        "POST /v1/chat/completions/",
        "POST /completion",
        "POST /chat/completions",
        "POST /v1/messages",
        "POST /tokenize",
        "POST /embeddings",
        "POST /rerank",
        "POST /v1/rerank",
        "POST /lora-adapters",
        "GET /lora-adapters",
        "POST /slots/0",
        "POST /infill",
        "POST /apply-template",
        "POST /v1/files",
        "GET /v1/files",
        "POST /v1/batches",
        "GET /v1/responses/resp_1",
        "DELETE /v1/responses/resp_1",
        "GET /v1/chat/completions",
        "POST /v1/fine_tuning/jobs",
        "POST /v1/images/generations",
        "POST /v1/audio/speech",
        "POST /v1/assistants",
        "POST /v1/threads",
        "GET /v1/vector_stores",
        "POST /v1/moderations",
        "POST /V1/chat/completions",
        "POST /invocations",
        "POST /update_weights",
        "POST /collective_rpc",
        "GET /api/tags",
        "POST /api/generate",
        "OPTIONS /v1/chat/completions",
        "PUT /v1/chat/completions",
        "post /v1/chat/completions",
    ],
)
def test_every_other_route_is_unknown(llm: Any, line: str) -> None:
    with pytest.raises(UnknownRouteError):
        llm.name(line, body())


def test_policies_know_size_stream_tools_and_length(llm: Any) -> None:
    tools = [
        {"type": "function", "function": {"name": "pay"}},
        {"type": "custom", "custom": {"name": "shell"}},
    ]
    content = body(stream=True, tools=tools, functions=[{"name": "old"}], max_tokens=9, n_predict=70)
    facts = llm.name(CHAT, content).facts
    assert (facts.bytes, facts.stream, facts.max_tokens) == (len(content), True, 70)
    assert facts.tools == {"pay", "shell", "old"}
    flat = json.dumps({"model": "m", "input": "x", "tools": [{"type": "function", "name": "pay"}]}).encode()
    assert llm.name("POST /v1/responses", flat).facts.tools == {"pay"}


@pytest.mark.parametrize(
    "key",
    [
        "api_base",
        "base_url",
        "api_key",
        "fallbacks",
        "models",
        "model_list",
        "lora",
        "lora_request",
        "id_slot",
        "engine",
        "route",
        "provider",
        "custom_llm_provider",
        "web_search_options",
        "extra_body",
        "extra_headers",
        "mock_response",
        "plugins",
        "transforms",
        "prompt_id",
        "kv_transfer_params",
        "speculative",
        "guardrails",
        "proxy_server_request",
    ],
)
def test_a_key_that_is_not_understood_is_refused_by_name(llm: Any, key: str) -> None:
    with pytest.raises(InvalidRequestError, match=key):
        llm.name(CHAT, body(**{key: "x"}))


@pytest.mark.parametrize(
    "key", ["Model", "MODEL", "Messages", "max-tokens", "maxTokens", "me\u017fsages", "\uff4dodel"]
)
def test_another_spelling_of_a_known_key_is_refused(llm: Any, key: str) -> None:
    with pytest.raises(InvalidRequestError, match="can be read as"):
        llm.name(CHAT, body(**{key: "other"}))


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"smollm2","model":"secret","messages":[]}',
        b'{"model":"smollm2","mo\\u0064el":"secret","messages":[]}',
        b'{"model":"smollm2","messages":[{"role":"user","content":"a","content":"b"}]}',
        b"model=smollm2",
        b"",
        b"[]",
    ],
)
def test_a_body_with_two_readings_or_none_is_refused(llm: Any, text: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        llm.name(CHAT, text)


@pytest.mark.parametrize("declared", [None, "text/plain", "multipart/form-data; boundary=b"])
def test_a_body_that_is_not_declared_as_json_is_415(llm: Any, declared: str | None) -> None:
    with pytest.raises(UnsupportedMediaError):
        llm.name(CHAT, body(), content_type=declared)


@pytest.mark.parametrize(
    "model",
    [
        None,
        "",
        7,
        ["smollm2"],
        {"id": "smollm2"},
        True,
        "a\nb",
        "x" * 300,
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "./a",
        "..",
    ],
)
def test_a_model_that_is_not_one_plain_name_is_refused(llm: Any, model: Any) -> None:
    with pytest.raises(InvalidRequestError, match="model"):
        llm.name(CHAT, body(model=model))


@pytest.mark.parametrize(
    "model", ["Smollm2", " smollm2", "smollm2 ", "azure-smollm2", "smollm2:latest", "ft:smollm2:x", "*"]
)
def test_a_variant_of_a_name_is_another_name(llm: Any, model: str) -> None:
    assert llm.asks(CHAT, body(model=model)) == [f'invoke Model::"llm/{model}"']


def chat(*parts: Any) -> bytes:
    return body(messages=[{"role": "user", "content": list(parts)}])


def responses(**more: Any) -> bytes:
    return json.dumps({"model": "smollm2", "input": "hi", **more}).encode()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (chat({"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}), "inline"),
        (chat({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}), "inline"),
        (chat({"type": "image_url", "image_url": "https://example.com/a.png"}), "inline"),
        (
            chat({"type": "image_url", "image_url": {"URL": "http://x", "url": "data:image/png;base64,AA"}}),
            "url",
        ),
        (chat({"type": "text", "text": "x", "image_url": {"url": "http://x"}}), "image_url"),
        (chat({"type": "file", "file": {"file_id": "file-1"}}), "file_id"),
        (chat({"type": "video_url", "video_url": {"url": "http://x"}}), "video_url"),
        (chat({"Type": "text", "type": "text"}), "can be read as"),
        (chat({"text": "no type"}), "None"),
        (body(messages=[{"role": "user", "Content": "x"}]), "can be read as"),
        (body(messages="hi there", tools="x"), "tools"),
        (body(tools=[{"type": "web_search"}]), "web_search"),
        (body(tools=[{"type": "mcp", "server_url": "http://x"}]), "mcp"),
        (body(tools=[{"type": "function", "function": {}}]), "name"),
        (body(tools=[{"Type": "mcp", "type": "function", "function": {"name": "x"}}]), "can be read as"),
        (body(stream="true"), "stream"),
        (body(max_tokens=-1), "whole number"),
        (body(max_tokens=True), "whole number"),
        (body(n_predict=1.5), "whole number"),
        (body(messages=[{"type": "mcp_call", "role": "user", "content": "x"}]), "mcp_call"),
        (body(messages=[{"role": "assistant", "audio": {"id": "audio_1"}}]), "audio"),
        (body(messages=[{"role": "assistant", "Audio": {"id": "audio_1"}}]), "can be read as"),
    ],
)
def test_chat_content_that_is_not_governed_yet_is_refused(llm: Any, content: bytes, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        llm.name(CHAT, content)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (responses(previous_response_id="resp_1"), "previous_response_id"),
        (responses(conversation={"id": "conv_1"}), "conversation"),
        (responses(background=True), "background"),
        (responses(prompt={"id": "pmpt_1"}), "prompt"),
        (responses(messages=[]), "messages"),
        (responses(input=[{"type": "item_reference", "id": "msg_1"}]), "item_reference"),
        (responses(input=[{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]), "file_id"),
        (
            responses(input=[{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]),
            "file_url",
        ),
        (
            responses(input=[{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]),
            "file_id",
        ),
        (
            responses(
                input=[{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]
            ),
            "inline",
        ),
        (
            responses(
                input=[
                    {
                        "type": "function_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_image", "image_url": "http://x"}],
                    }
                ]
            ),
            "inline",
        ),
        *[
            (responses(tools=[{"type": kind}]), kind)
            for kind in (
                "web_search",
                "web_search_preview",
                "file_search",
                "code_interpreter",
                "mcp",
                "computer_use_preview",
                "image_generation",
                "local_shell",
                "shell",
                "apply_patch",
            )
        ],
    ],
)
def test_server_side_state_tools_and_files_of_responses_are_refused(
    llm: Any, content: bytes, named: str
) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        llm.name("POST /v1/responses", content)


@pytest.mark.parametrize(
    "content",
    [
        chat(
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ),
        chat({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}),
        body(
            tools=[
                {"type": "function", "function": {"name": "f", "parameters": {"properties": {"Model": {}}}}}
            ]
        ),
        body(
            messages=[
                {"role": "assistant", "content": None, "tool_calls": []},
                {"role": "tool", "content": "x"},
            ]
        ),
        body(
            temperature=0,
            top_k=1,
            min_p=0.1,
            seed=3,
            grammar="root ::= x",
            stream_options={"include_usage": True},
        ),
        body(stream=None, max_tokens=None),
    ],
)
def test_what_stock_clients_send_passes(llm: Any, content: bytes) -> None:
    assert llm.asks(CHAT, content) == ['invoke Model::"llm/smollm2"']


def test_null_state_fields_of_responses_pass(llm: Any) -> None:
    assert llm.asks("POST /v1/responses", responses(previous_response_id=None, background=False))


@pytest.mark.parametrize(
    "line", ["POST /v1/chat/completions?model=secret", "GET /v1/models?x=1", "GET /v1/models/a?b"]
)
def test_query_parameters_are_refused(llm: Any, line: str) -> None:
    with pytest.raises(InvalidRequestError, match="query"):
        llm.name(line, body() if line.startswith("POST") else b"")


def test_a_get_with_a_body_is_refused(llm: Any) -> None:
    assert llm.adapter.body_need(llm.request("GET /v1/models")) is BodyNeed.WHOLE
    with pytest.raises(InvalidRequestError, match="body"):
        llm.name("GET /v1/models", b"{}")


async def test_the_authorised_bytes_are_the_bytes_sent(llm: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, b"{}"))
    content = b' {"messages" : [] ,"model":"smollm2" }\n'
    await llm.forward(CHAT, upstream, content)
    (sent,) = upstream.requests
    assert (sent.method, sent.target, sent.body, sent.content_length) == (
        "POST",
        "/v1/chat/completions",
        content,
        len(content),
    )


async def test_headers_that_choose_elsewhere_or_identify_do_not_pass(llm: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, b"{}"))
    given = [
        ("authorization", "Bearer dw_caller"),
        ("x-api-key", "dw_caller"),
        ("cookie", "a=b"),
        ("x-model", "secret"),
        ("openai-organization", "other"),
        ("x-portkey-custom-host", "http://evil"),
        ("accept-encoding", "gzip"),
        ("x-forwarded-for", "1.2.3.4"),
        ("doorward-purpose", "p"),
        ("user-agent", "stock/1"),
    ]
    await llm.forward(CHAT, upstream, body(), headers=given)
    assert sorted(upstream.requests[0].headers) == [
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("user-agent", "stock/1"),
    ]


LISTED = {
    "object": "list",
    "data": [
        {"id": "smollm2", "object": "model", "aliases": ["smollm2", "secret"], "meta": {"n": 1}},
        {"id": "secret", "object": "model"},
        {"object": "model"},
        "odd",
    ],
    "models": [{"name": "smollm2", "model": "smollm2"}, {"name": "shown", "model": "secret"}],
    "has_more": False,
    "groups": {"secret": 1},
}


async def test_the_list_keeps_its_shape_and_shows_only_what_may_be_viewed(llm: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, json.dumps(LISTED).encode()))
    upstream.headers += [("Content-Length", "999"), ("ETag", '"all"'), ("Set-Cookie", "a=b"), ("Server", "x")]
    answer, content, outcome = await llm.forward("GET /v1/models", upstream, hidden=['Model::"llm/secret"'])
    assert json.loads(content) == {
        "object": "list",
        "data": [{"id": "smollm2", "object": "model", "aliases": ["smollm2"], "meta": {"n": 1}}],
        "models": [{"name": "smollm2", "model": "smollm2"}],
        "has_more": False,
    }
    assert answer.headers == [("Content-Type", "application/json")]
    assert outcome["shown"] == 1
    assert b"secret" not in content
    assert upstream.answers[0].closed


async def test_a_list_that_cannot_be_read_is_not_shown(llm: Any, scripted: Any) -> None:
    for content in (b"[]", b"<html>", b""):
        with pytest.raises(UnavailableError):
            await llm.forward("GET /v1/models", scripted(lambda _, c=content: (200, c)))


STREAM = (
    b'data: {"model":"smollm2","choices":[{"delta":{"content":"\\"usage\\":{\\"prompt_tokens\\":9}"}}]}\n\n',
    b'data: {"model":"smollm2","choices":[],"usa',
    b'ge":{"completion_tokens":5,"prompt_',
    b'tokens":31}}\n\n',
    b"data: [DONE]\n\n",
)


async def test_a_stream_passes_untouched_and_its_tokens_are_counted(llm: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, STREAM))
    upstream.headers = [("Content-Type", "text/event-stream")]
    answer, content, outcome = await llm.forward(CHAT, upstream, body(stream=True))
    assert content == b"".join(STREAM)
    assert answer.headers == [("Content-Type", "text/event-stream")]
    assert outcome == {"tokens_in": 31, "tokens_out": 5}
    assert upstream.answers[0].closed


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b'{"model":"smollm2","usage":{"input_tokens":3,"output_tokens":4}}',
            {"tokens_in": 3, "tokens_out": 4},
        ),
        (b'{"model":"smollm2","usage":{"prompt_tokens":3}}', {"tokens_in": 3}),
        (b'{"model":"smollm2","usage":{"prompt_tokens":"3","completion_tokens":-1}}', {}),
        (b'{"model":"smollm2","usage":null}', {}),
        (b'{"model":"smollm2","choices":[{"text":"\\"usage\\": {\\"prompt_tokens\\": 3}"}]}', {}),
        (b'{"model":"other"}', {"model_mismatch": 1}),
        (b"not json", {}),
    ],
)
async def test_what_is_counted_is_what_the_upstream_says(
    llm: Any, scripted: Any, content: bytes, expected: Any
) -> None:
    answer, passed, outcome = await llm.forward(CHAT, scripted(lambda _: (200, content)), body())
    assert (passed, outcome, answer.status) == (content, expected, 200)


async def test_memory_of_a_long_answer_is_bounded(llm: Any, scripted: Any) -> None:
    tail = b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    upstream = scripted(lambda _: (200, (*[b"x" * 65536] * 200, tail)))
    _, content, outcome = await llm.forward(CHAT, upstream, body())
    assert len(content) == 200 * 65536 + len(tail)
    assert outcome == {"tokens_in": 1, "tokens_out": 2}


async def test_an_upstreams_own_error_passes_natively(llm: Any, scripted: Any) -> None:
    answer, content, _ = await llm.forward(CHAT, scripted(lambda _: (400, b'{"error":{"code":400}}')), body())
    assert (answer.status, content) == (400, b'{"error":{"code":400}}')


@pytest.mark.parametrize("status", [401, 407, 301, 302, 307, 308])
async def test_a_refused_credential_or_a_redirect_never_reaches_the_caller(
    llm: Any, scripted: Any, status: int
) -> None:
    upstream = scripted(
        lambda _: (status, b'{"error":{"message":"Incorrect API key provided: upstream-key"}}')
    )
    with pytest.raises(UnavailableError) as failed:
        await llm.forward(CHAT, upstream, body())
    assert "upstream-key" not in str(failed.value)
    assert upstream.answers[0].closed


async def test_a_coded_answer_is_refused(llm: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, b"\x1f\x8b"))
    upstream.headers.append(("Content-Encoding", "gzip"))
    with pytest.raises(UnavailableError, match="gzip"):
        await llm.forward(CHAT, upstream, body())


def test_a_refusal_is_an_openai_error_that_says_the_way_in(llm: Any) -> None:
    refusal = Refusal(
        status=403,
        code="denied",
        title="Denied",
        detail="You may not invoke it.",
        request_id="req-1",
        would_allow=(Change("context.device.proven", "Use your managed laptop."),),
    )
    answer = llm.adapter.refuse(llm.request(CHAT), refusal)
    assert answer.status == 403
    assert json.loads(answer.body) == {
        "error": {
            "message": "You may not invoke it. To be let in: Use your managed laptop.",
            "type": "permission_error",
            "param": None,
            "code": "denied",
        }
    }
    assert ("x-should-retry", "false") in answer.headers


def test_a_way_in_that_the_detail_says_already_is_not_said_twice(llm: Any) -> None:
    refusal = Refusal(
        status=429,
        code="limit_exceeded",
        title="Limit",
        detail="Wait. Use MFA.",
        request_id="r",
        retry_after=7,
        would_allow=(Change("x", "Use MFA."),),
        challenge="Bearer",
    )
    answer = llm.adapter.refuse(llm.request(CHAT), refusal)
    assert json.loads(answer.body)["error"]["message"] == "Wait. Use MFA."
    assert ("retry-after", "7") in answer.headers
    assert ("www-authenticate", "Bearer") in answer.headers


def test_a_hidden_and_an_unknown_model_are_told_apart_by_nothing_but_the_name(llm: Any) -> None:
    request, naming = llm.request(CHAT), llm.name(CHAT, body(model="secret"))
    answer = llm.adapter.not_found(request, naming, "req-1")
    assert (answer.status, json.loads(answer.body)) == (
        404,
        {
            "error": {
                "message": "The model `secret` does not exist or you do not have access to it.",
                "type": "invalid_request_error",
                "param": None,
                "code": "model_not_found",
            }
        },
    )
