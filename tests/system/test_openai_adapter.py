"""A real language model behind the OpenAI protocol file, asked by the stock client."""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from doorward.gateway.protocols.openai import OpenAIAdapter
from doorward.settings import UpstreamSettings
from support.adapter_door import AdapterDoor, free_port, model_file, running, served

SERVER = """
import sys, os, signal, xllamacpp as x
p = x.CommonParams(); p.model.path = sys.argv[1]; p.hostnames = ["127.0.0.1"]; p.port = int(sys.argv[2])
p.n_ctx = 1024; p.n_parallel = 2; p.cpuparams.n_threads = 2; p.model_alias = {"smollm2"}
p.api_keys = [os.environ["LLM_KEY"]]
s = x.Server(p); print(s.listening_address, flush=True); signal.pause()
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamSettings]:
    weights, port, key = model_file(), free_port(), secrets.token_hex(16)
    folder: Path = tmp_path_factory.mktemp("llm")
    command = [sys.executable, "-c", SERVER, str(weights), str(port)]
    with (
        pytest.MonkeyPatch.context() as patch,
        running(
            command, ready=f"http://127.0.0.1:{port}/health", seconds=60, log=folder / "log", LLM_KEY=key
        ),
    ):
        patch.setenv("DOORWARD_TEST_LLM_KEY", key)
        yield UpstreamSettings.model_validate(
            {
                "name": "llm",
                "kind": "openai",
                "url": f"http://127.0.0.1:{port}",
                "credential": {"header": "Authorization", "value": "Bearer ${DOORWARD_TEST_LLM_KEY}"},
            }
        )


@pytest.fixture(scope="module")
def serving(upstream: UpstreamSettings) -> Iterator[AdapterDoor]:
    with served(AdapterDoor(OpenAIAdapter(upstream))) as door:
        yield door


@pytest.fixture
def door(serving: AdapterDoor) -> Iterator[AdapterDoor]:
    yield serving
    serving.forgets()


@pytest.fixture
def client(door: AdapterDoor) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key="dw_caller", max_retries=0) as stock:
        yield stock


@pytest.fixture
def direct(upstream: UpstreamSettings) -> Iterator[openai.OpenAI]:
    key = upstream.credential.value.removeprefix("Bearer ")  # type: ignore[union-attr]  # a header credential
    with openai.OpenAI(base_url=f"{upstream.url}/v1", api_key=key, max_retries=0) as stock:
        yield stock


def ask(client: openai.OpenAI, model: str = "smollm2") -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0, seed=1
    )


def test_a_whole_answer_is_the_upstreams_own(
    door: AdapterDoor, client: openai.OpenAI, direct: openai.OpenAI
) -> None:
    guarded, plain = ask(client), ask(direct)
    assert guarded.choices == plain.choices
    assert guarded.usage is not None
    assert door.seen == ['invoke Model::"llm/smollm2"']
    usage = {"tokens_in": guarded.usage.prompt_tokens, "tokens_out": guarded.usage.completion_tokens}
    assert door.outcome() == usage


def test_a_streamed_answer_arrives_token_by_token(door: AdapterDoor, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Count."}],
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    events = list(stream)
    words = [event.choices[0].delta.content for event in events if event.choices]
    assert len([word for word in words if word]) > 3
    assert events[-1].usage is not None
    assert door.outcome()["tokens_out"] == events[-1].usage.completion_tokens


def test_the_responses_api_answers_and_is_counted(door: AdapterDoor, client: openai.OpenAI) -> None:
    answer = client.responses.create(model="smollm2", input="Say hello.", max_output_tokens=6)
    assert answer.output_text
    assert answer.usage is not None
    assert door.outcome()["tokens_out"] == answer.usage.output_tokens
    events = list(client.responses.create(model="smollm2", input="Count.", max_output_tokens=6, stream=True))
    assert events[-1].type == "response.completed"
    assert door.outcome()["tokens_out"] > 0


def test_the_list_is_the_upstreams_own_without_what_is_hidden(
    door: AdapterDoor, client: openai.OpenAI, direct: openai.OpenAI
) -> None:
    whole = direct.models.list().data
    assert client.models.list().data == whole
    assert [model.id for model in whole] == ["smollm2"]
    door.hidden.add('Model::"llm/smollm2"')
    assert client.models.list().data == []
    raw = client.models.with_raw_response.list()
    assert "smollm2" not in raw.text
    assert set(raw.headers) & {"server", "set-cookie", "access-control-allow-origin"} <= {"server"}


def test_a_hidden_model_and_one_that_does_not_exist_get_the_same_answer(
    door: AdapterDoor, client: openai.OpenAI
) -> None:
    door.hidden.update({'Model::"llm/secret"', 'Model::"llm/nothing"'})
    texts = []
    for name in ("secret", "nothing"):
        with pytest.raises(openai.NotFoundError) as missing:
            ask(client, name)
        assert missing.value.code == "model_not_found"
        texts.append(missing.value.response.text.replace(name, "NAME"))
    assert texts[0] == texts[1]


def test_the_stock_client_prints_the_sentence_of_a_refusal(door: AdapterDoor, client: openai.OpenAI) -> None:
    door.denied.add('invoke Model::"llm/smollm2"')
    with pytest.raises(openai.PermissionDeniedError, match="Use your managed laptop"):
        ask(client)
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="smollm2", input="x", previous_response_id="resp_1")


def test_the_upstreams_own_error_reaches_the_client(client: openai.OpenAI, direct: openai.OpenAI) -> None:
    errors = []
    for stock in (client, direct):
        with pytest.raises(openai.APIStatusError) as failed:
            stock.embeddings.create(model="smollm2", input="x")
        errors.append((failed.value.status_code, failed.value.response.text))
    assert errors[0] == errors[1]


def test_clients_at_the_same_time_get_their_own_answers(client: openai.OpenAI) -> None:
    answers: dict[int, str | None] = {}

    def one(number: int) -> None:
        answers[number] = ask(client).choices[0].message.content

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 4
    assert all(answers.values())
