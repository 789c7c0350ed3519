"""The MLflow protocol file: names, refusals, filters, pages (attacks 25, 35, 39-42, features 4.1-4.5)."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from doorward.core.errors import InvalidRequestError, UnavailableError, UnsupportedMediaError
from doorward.core.wire import UpstreamRequest
from doorward.gateway.adapter import BodyNeed, Refusal, UnknownRouteError
from doorward.gateway.protocols.mlflow import MlflowAdapter
from doorward.settings import UpstreamSettings

RUN, RUN2, LOGGED = "0" * 31 + "a", "0" * 31 + "b", "m-" + "c" * 32
API = "/api/2.0/mlflow"
ART = "/api/2.0/mlflow-artifacts/artifacts"
NAMED = 'Model::"registry/fraud"'
VERSION = 'Model::"registry/fraud/3"'
RUN_UID = f'Dataset::"registry/runs/{RUN}"'
LOG_UID = f'Model::"registry/logged-models/{LOGGED}"'
EXP = 'Dataset::"registry/experiments/7"'


@pytest.fixture
def registry(play: Any) -> Any:
    return play(MlflowAdapter(UpstreamSettings(name="registry", kind="mlflow", url="http://127.0.0.1:5000")))


def route(line: str) -> str:
    method, path = line.split(" ", 1)
    return f"{method} {API}/{path}"


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


FM = {"name": "fraud"}
FV = {"name": "fraud", "version": "3"}
KV = {"key": "k", "value": "v"}
TABLE: list[tuple[str, dict[str, Any] | None, list[str]]] = [
    ("GET registered-models/get?name=fraud", None, [f"view {NAMED}"]),
    ("POST registered-models/create", {**FM, "tags": [KV]}, [f"create {NAMED}"]),
    (
        "POST registered-models/rename",
        {**FM, "new_name": "b"},
        [f"modify {NAMED}", 'create Model::"registry/b"'],
    ),
    ("PATCH registered-models/update", {**FM, "description": "d"}, [f"modify {NAMED}"]),
    ("DELETE registered-models/delete", FM, [f"delete {NAMED}"]),
    ("POST registered-models/get-latest-versions", {**FM, "stages": ["None"]}, [f"view {NAMED}"]),
    ("GET registered-models/get-latest-versions?name=fraud&stages=a&stages=b", None, [f"view {NAMED}"]),
    ("POST registered-models/set-tag", {**FM, **KV}, [f"modify {NAMED}"]),
    ("DELETE registered-models/delete-tag", {**FM, "key": "k"}, [f"modify {NAMED}"]),
    ("POST registered-models/alias", {**FV, "alias": "champion"}, [f"deploy {VERSION}"]),
    ("POST registered-models/alias", {**FV, "alias": "Production"}, [f"deploy {VERSION}"]),
    ("POST registered-models/alias", {**FV, "alias": "candidate"}, [f"modify {VERSION}"]),
    ("DELETE registered-models/alias", {**FM, "alias": "champion"}, [f"deploy {NAMED}"]),
    ("DELETE registered-models/alias", {**FM, "alias": "candidate"}, [f"modify {NAMED}"]),
    ("GET registered-models/alias?name=fraud&alias=champion", None, [f"view {NAMED}"]),
    ("GET model-versions/get?name=fraud&version=3", None, [f"view {VERSION}"]),
    ("GET model-versions/get-download-uri?name=fraud&version=3", None, [f"view {VERSION}"]),
    ("PATCH model-versions/update", {**FV, "description": "d"}, [f"modify {VERSION}"]),
    ("DELETE model-versions/delete", FV, [f"delete {VERSION}"]),
    ("POST model-versions/set-tag", {**FV, **KV}, [f"modify {VERSION}"]),
    ("DELETE model-versions/delete-tag", {**FV, "key": "k"}, [f"modify {VERSION}"]),
    ("POST model-versions/transition-stage", {**FV, "stage": "Production"}, [f"deploy {VERSION}"]),
    ("POST model-versions/transition-stage", {**FV, "stage": "production"}, [f"deploy {VERSION}"]),
    ("POST model-versions/transition-stage", {**FV, "stage": "Archived"}, [f"deploy {VERSION}"]),
    (
        "POST model-versions/transition-stage",
        {**FV, "stage": "None", "archive_existing_versions": True},
        [f"deploy {VERSION}", f"deploy {NAMED}"],
    ),
    (
        "POST model-versions/create",
        {**FM, "source": f"runs:/{RUN}/model", "run_id": RUN},
        [f"create {NAMED}", f"read {RUN_UID}", f"view {RUN_UID}"],
    ),
    (
        "POST model-versions/create",
        {**FM, "source": f"models:/{LOGGED}", "model_id": LOGGED},
        [f"create {NAMED}", f"read {LOG_UID}", f"view {LOG_UID}"],
    ),
    (
        "POST model-versions/create",
        {**FM, "source": "models:/other/2"},
        [f"create {NAMED}", 'read Model::"registry/other/2"'],
    ),
    (
        "POST model-versions/create",
        {**FM, "source": "models:/other@champion"},
        [f"create {NAMED}", 'read Model::"registry/other"'],
    ),
    (
        "POST model-versions/create",
        {**FM, "source": f"mlflow-artifacts:/7/{RUN}/artifacts/model"},
        [f"create {NAMED}", f"read {RUN_UID}"],
    ),
    (
        "POST model-versions/create",
        {**FM, "source": f"mlflow-artifacts:/7/models/{LOGGED}/artifacts"},
        [f"create {NAMED}", f"read {LOG_UID}"],
    ),
    ("POST experiments/create", {"name": "e"}, ['create Dataset::"registry/experiments"']),
    ("GET experiments/get?experiment_id=7", None, [f"view {EXP}"]),
    ("POST experiments/update", {"experiment_id": "7", "new_name": "n"}, [f"modify {EXP}"]),
    ("POST experiments/delete", {"experiment_id": "7"}, [f"delete {EXP}"]),
    ("POST experiments/restore", {"experiment_id": "7"}, [f"modify {EXP}"]),
    ("POST experiments/set-experiment-tag", {"experiment_id": "7", **KV}, [f"modify {EXP}"]),
    ("POST runs/create", {"experiment_id": "7", "user_id": "x", "start_time": 1}, [f"create {EXP}"]),
    (f"GET runs/get?run_id={RUN}", None, [f"view {RUN_UID}"]),
    (f"GET runs/get?run_uuid={RUN}&run_id={RUN}", None, [f"view {RUN_UID}"]),
    ("POST runs/update", {"run_id": RUN, "run_uuid": RUN, "status": "FINISHED"}, [f"modify {RUN_UID}"]),
    ("POST runs/delete", {"run_id": RUN}, [f"delete {RUN_UID}"]),
    (
        "POST runs/log-metric",
        {"run_uuid": RUN, "run_id": RUN, "key": "k", "value": 1.0, "timestamp": 1},
        [f"modify {RUN_UID}"],
    ),
    (
        "POST runs/log-metric",
        {"run_id": RUN, "key": "k", "value": 1, "timestamp": 1, "model_id": LOGGED},
        [f"modify {RUN_UID}", f"modify {LOG_UID}"],
    ),
    (
        "POST runs/log-batch",
        {"run_id": RUN, "metrics": [{**KV, "model_id": LOGGED, "run_id": RUN}], "tags": [KV]},
        [f"modify {RUN_UID}", f"modify {LOG_UID}"],
    ),
    (
        "POST runs/log-inputs",
        {"run_id": RUN, "models": [{"model_id": LOGGED}]},
        [f"modify {RUN_UID}", f"view {LOG_UID}"],
    ),
    (
        "POST runs/outputs",
        {"run_id": RUN, "models": [{"model_id": LOGGED, "step": 1}]},
        [f"modify {RUN_UID}", f"modify {LOG_UID}"],
    ),
    ("POST runs/set-tag", {"run_id": RUN, **KV}, [f"modify {RUN_UID}"]),
    (f"GET metrics/get-history?run_id={RUN}&metric_key=k", None, [f"view {RUN_UID}"]),
    (
        f"GET metrics/get-history-bulk-interval?run_ids={RUN}&run_ids={RUN2}&metric_key=k",
        None,
        [f"view {RUN_UID}", f'view Dataset::"registry/runs/{RUN2}"'],
    ),
    (f"GET artifacts/list?run_id={RUN}&path=model", None, [f"view {RUN_UID}"]),
    (
        "POST logged-models",
        {"experiment_id": "7", "source_run_id": RUN},
        ['create Model::"registry/logged-models"', f"create {EXP}", f"modify {RUN_UID}"],
    ),
]


@pytest.mark.parametrize(("line", "fields", "expected"), TABLE, ids=[row[0][:60] for row in TABLE])
def test_a_route_names_what_it_does_to_what(
    registry: Any, line: str, fields: dict[str, Any] | None, expected: list[str]
) -> None:
    assert registry.asks(route(line), b"" if fields is None else body(**fields)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "GET registered-models/search",
        "GET model-versions/search?filter=x",
        "GET experiments/search?max_results=1",
        "POST experiments/search",
        "POST runs/search",
        "POST logged-models/search",
        "GET experiments/get-by-name?experiment_name=x",
    ],
)
def test_a_search_asks_nothing_and_is_decided_name_by_name(registry: Any, line: str) -> None:
    naming = registry.name(route(line), b"{}" if line.startswith("POST") else b"")
    assert naming.lists
    assert naming.asks == ()


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET /health",
        "GET /version",
        "GET /metrics",
        "POST /graphql",
        "GET /graphql",
        "GET /get-artifact?path=x&run_uuid=y",
        "GET /model-versions/get-artifact?name=x",
        "GET /ajax-api/2.0/mlflow/registered-models/get?name=fraud",
        "POST /ajax-api/2.0/mlflow/upload-artifact",
        "GET /ajax-api/2.0/mlflow/gateway-proxy",
        "GET /static-files/x",
        "GET /api/2.0/mlflow/users/get?username=admin",
        "POST /api/2.0/mlflow/users/create",
        "GET /signup",
        "POST /api/2.0/mlflow/webhooks",
        "GET /api/3.0/mlflow/server-info",
        "POST /api/3.0/mlflow/traces/search",
        "POST /api/2.0/mlflow/artifacts/presigned-download-url",
        "GET /api/2.0/mlflow-artifacts/presigned/0/x",
        "POST /api/2.0/mlflow-artifacts/mpu/create/0/x",
        "GET /api/3.0/mlflow/gateway/secrets/list",
        "HEAD /api/2.0/mlflow/registered-models/get?name=fraud",
        "POST /api/2.0/mlflow/registered-models/get",
        "GET /api/2.0/mlflow/registered-models/get/?name=fraud",
        "GET /api/2.0/preview/mlflow/registered-models/get?name=fraud",
        "GET /api/2.0/MLFLOW/registered-models/get?name=fraud",
        "DELETE /api/2.0/mlflow-artifacts/artifacts?path=0",
        "POST /api/2.0/mlflow-artifacts/artifacts/0/x",
        "GET /api/2.0/mlflow/logged-models/x/artifacts/directories",
    ],
)
def test_every_other_route_is_unknown(registry: Any, line: str) -> None:
    with pytest.raises(UnknownRouteError):
        registry.name(line, b"")


@pytest.mark.parametrize(
    ("line", "content"),
    [
        # two readings of one field: duplicates, protobuf's other spelling, other cases, both places
        ("POST registered-models/create", b'{"name":"mine","name":"fraud"}'),
        ("POST registered-models/create", b'{"name":"mine","na\\u006de":"fraud"}'),
        ("POST registered-models/rename", body(name="mine", new_name="x", newName="fraud")),
        ("POST registered-models/rename", body(name="mine", newName="fraud")),
        ("POST runs/set-tag", body(run_id=RUN, runId=RUN2, key="k", value="v")),
        ("POST runs/set-tag", body(run_id=RUN, run_uuid=RUN2, key="k", value="v")),
        ("POST runs/set-tag", body(run_id=RUN, Run_Id=RUN2, key="k", value="v")),
        ("POST registered-models/set-tag", body(name="mine", Name="fraud", key="k", value="v")),
        ("POST registered-models/set-tag", b'{"name":"mine","\\uff4eame":"fraud","key":"k","value":"v"}'),
        ("POST registered-models/set-tag?name=fraud", body(name="mine", key="k", value="v")),
        ("GET registered-models/get?name=mine&name=fraud", b""),
        ("GET registered-models/get?name=mine&Name=fraud", b""),
        ("GET registered-models/get?name=mine", body(name="fraud")),
        ("GET registered-models/get", body(name="fraud")),
        ("GET model-versions/get?name=fraud&version=3&x=1", b""),
        ("POST runs/log-batch", body(run_id=RUN, metrics=[{"key": "k", "value": 1, "modelId": LOGGED}])),
        ("POST runs/log-batch", body(run_id=RUN, metrics=[{"key": "k", "run_id": RUN2}])),
        ("POST runs/log-batch", body(run_id=RUN, metrics=[{"key": "k", "run_id": [RUN]}])),
        ("POST runs/log-batch", body(run_id=RUN, metrics={"key": "k"})),
        ("PATCH logged-models/" + LOGGED, body(model_id="m-" + "d" * 32, status="LOGGED_MODEL_READY")),
        # a field that is not on the list
        ("POST registered-models/create", body(name="m", deployment_job_id="j")),
        ("POST registered-models/create", body(name="m", future_field="x")),
        ("POST experiments/create", body(name="e", artifact_location="http://169.254.169.254/")),
        ("POST experiments/create", body(name="e", artifact_location="file:///etc")),
        ("POST experiments/create", body(name="e", artifact_location=f"mlflow-artifacts:/7/{RUN}/artifacts")),
        # not the object that MLflow would make of it
        ("POST registered-models/create", b'"{\\"name\\": \\"fraud\\"}"'),
        ("POST registered-models/create", b"[]"),
        ("POST registered-models/create", b""),
        ("POST registered-models/create", b'\xef\xbb\xbf{"name":"m"}'),
        ("POST registered-models/create", body(name=["fraud"])),
        ("POST registered-models/create", body(name=None)),
        ("POST registered-models/create", body(name=7)),
        ("POST model-versions/transition-stage", body(**FV, stage=["Production"])),
        ("POST model-versions/transition-stage", body(**FV, stage="None", archive_existing_versions="true")),
        ("GET metrics/get-history-bulk-interval?metric_key=k", b""),
    ],
)
def test_what_can_be_read_in_two_ways_or_not_at_all_is_refused(
    registry: Any, line: str, content: bytes
) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(route(line), content)


@pytest.mark.parametrize(
    "name", ["", " ", "fraud ", " fraud", "a/1", "a:1", "..", ".", "logged-models", "a\n", "x" * 300, "a\\b"]
)
def test_a_model_name_that_could_slip_under_another_is_refused(registry: Any, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(route("POST registered-models/create"), body(name=name))


@pytest.mark.parametrize("version", ["01", "+1", " 1", "1 ", "1.0", "0", "-1", "\uff11", "latest", "1/2", ""])
def test_a_version_has_one_spelling(registry: Any, version: str) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(route("DELETE model-versions/delete"), body(name="fraud", version=version))


@pytest.mark.parametrize("run", [RUN.upper(), RUN[:-1], RUN + "0", "../x", f" {RUN}", f"{RUN}\n"])
def test_a_run_has_one_spelling(registry: Any, run: str) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(route("POST runs/delete"), body(run_id=run))


@pytest.mark.parametrize("experiment", ["00", "07", "+7", "\uff17", "7.0", "-1", ""])
def test_an_experiment_has_one_spelling(registry: Any, experiment: str) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(route("POST experiments/delete"), body(experiment_id=experiment))


@pytest.mark.parametrize(
    "source",
    [
        "http://169.254.169.254/x",
        "https://evil/x",
        "s3://bucket/x",
        "file:///etc/passwd",
        "/etc/passwd",
        "model",
        "",
        "dbfs:/x",
        "ftp://x/y",
        "models://host/fraud/1",
        "runs://host/x",
        f"mlflow-artifacts://evil:80/0/{RUN}/artifacts",
        "mlflow-artifacts:/somewhere",
        f"mlflow-artifacts:/7/{RUN}/artifacts/../../8/x",
        f"mlflow-artifacts:/7/{RUN}",
        f"runs:/{RUN}/a/../b",
        f"runs:/{RUN}/a%2e%2e/b",
        f"runs:/{RUN}/a?x=1",
        f"runs:/{RUN}/a#b",
        f"runs:/{RUN}//a",
        "models:/fraud",
        "models:/fraud/latest",
        "models:/fraud/Production",
        "models:/a/1/b",
        "MODELS:/fraud/1",
        f" runs:/{RUN}/a",
        "http:/x",
        f"models:/{LOGGED}/x",
        f"runs:/{RUN}/a\nb",
        f"runs:/{RUN}\\a",
    ],
)
def test_a_version_is_made_only_from_what_is_governed(registry: Any, source: str) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(route("POST model-versions/create"), body(name="m", source=source))


def test_a_body_must_be_declared_as_json(registry: Any) -> None:
    with pytest.raises(UnsupportedMediaError):
        registry.name(route("POST registered-models/create"), body(name="m"), content_type="text/plain")


# What depends on the upstream's state


def stage_of(stage: str | None, status: int = 200) -> Any:
    document = {"model_version": {**FV, **({"current_stage": stage} if stage else {})}}
    return lambda _: (status, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("stage", "current", "expected"),
    [
        ("Archived", ("None", 200), "modify"),
        ("None", ("Archived", 200), "modify"),
        ("Archived", ("Production", 200), "deploy"),
        ("None", ("Staging", 200), "deploy"),
        ("Production", ("None", 200), "deploy"),
        ("Archived", ("None", 404), "modify"),
    ],
)
async def test_leaving_a_deployed_stage_is_deployment_too(
    registry: Any, scripted: Any, stage: str, current: Any, expected: str
) -> None:
    line = route("POST model-versions/transition-stage")
    naming = await registry.refined(line, body(**FV, stage=stage), scripted(stage_of(*current)))
    assert [f"{ask.action} {ask.resource}" for ask in naming.asks] == [f"{expected} {VERSION}"]


async def test_a_stage_that_cannot_be_found_out_stops_the_request(registry: Any, scripted: Any) -> None:
    line = route("POST model-versions/transition-stage")
    with pytest.raises(UnavailableError):
        await registry.refined(line, body(**FV, stage="None"), scripted(stage_of("None", 500)))


def versions(*sources: str) -> Any:
    found = [{"name": f"m{i}", "version": "1", "source": source} for i, source in enumerate(sources)]
    return lambda _: (200, json.dumps({"model_versions": found} if found else {}).encode())


IN_LOGGED = f"{ART}/7/models/{LOGGED}/artifacts/model.pkl"
IN_RUN = f"{ART}/7/{RUN}/artifacts/model/model.pkl"


@pytest.mark.parametrize(
    ("line", "sources", "expected"),
    [
        (f"GET {IN_LOGGED}", [], [f"export {LOG_UID}", f"view {EXP}"]),
        (f"GET {IN_LOGGED}", [f"models:/{LOGGED}"], ['export Model::"registry/m0/1"']),
        (
            f"GET {IN_LOGGED}",
            [f"models:/{LOGGED}", "odd"],
            ['export Model::"registry/m0/1"', 'export Model::"registry/m1/1"'],
        ),
        (f"GET {IN_RUN}", [], [f"export {RUN_UID}", f"view {EXP}"]),
        (f"GET {IN_RUN}", [f"runs:/{RUN}/model"], ['export Model::"registry/m0/1"']),
        (f"GET {IN_RUN}", [f"runs:/{RUN}/mod"], [f"export {RUN_UID}", f"view {EXP}"]),
        (f"GET {IN_RUN}", [f"runs:/{RUN}/"], ['export Model::"registry/m0/1"']),
        (f"GET {IN_RUN}", [f"mlflow-artifacts:/7/{RUN}/artifacts/model"], ['export Model::"registry/m0/1"']),
        (f"GET {IN_RUN}", [f"mlflow-artifacts:/7/{RUN}/artifacts"], ['export Model::"registry/m0/1"']),
        (f"PUT {IN_LOGGED}", [], [f"modify {LOG_UID}", f"view {EXP}"]),
        (
            f"PUT {IN_LOGGED}",
            [f"models:/{LOGGED}"],
            ['modify Model::"registry/m0/1"', 'deploy Model::"registry/m0/1"'],
        ),
        (f"DELETE {IN_RUN}", [], [f"delete {RUN_UID}", f"view {EXP}"]),
        (
            f"DELETE {IN_RUN}",
            [f"runs:/{RUN}/model"],
            ['delete Model::"registry/m0/1"', 'deploy Model::"registry/m0/1"'],
        ),
        (
            f"GET {ART}?path=7/models/{LOGGED}/artifacts",
            [f"models:/{LOGGED}"],
            ['view Model::"registry/m0/1"'],
        ),
        (f"GET {ART}?path=7/{RUN}/artifacts", [], [f"view {RUN_UID}", f"view {EXP}"]),
        (f"GET {API}/logged-models/{LOGGED}", [f"models:/{LOGGED}"], ['view Model::"registry/m0/1"']),
        (f"GET {API}/logged-models/{LOGGED}", [], [f"view {LOG_UID}"]),
        (
            f"PATCH {API}/logged-models/{LOGGED}/tags",
            [f"models:/{LOGGED}"],
            ['modify Model::"registry/m0/1"'],
        ),
        (f"DELETE {API}/logged-models/{LOGGED}", [f"models:/{LOGGED}"], ['delete Model::"registry/m0/1"']),
    ],
)
async def test_the_bytes_of_a_registered_model_are_decided_under_its_name(
    registry: Any, scripted: Any, line: str, sources: list[str], expected: list[str]
) -> None:
    upstream = scripted(versions(*sources))
    naming = await registry.refined(line, b"", upstream)
    assert [f"{ask.action} {ask.resource}" for ask in naming.asks] == expected
    assert all(request.method == "GET" for request in upstream.requests)


@pytest.mark.parametrize(
    "line", [f"GET {IN_LOGGED}", f"GET {API}/logged-models/{LOGGED}", f"GET {ART}?path=7/{RUN}/artifacts"]
)
async def test_without_the_upstreams_state_nothing_is_named_and_nothing_is_sent(
    registry: Any, scripted: Any, line: str
) -> None:
    upstream = scripted(versions())
    naming = registry.name(line)
    assert naming.asks == ()
    assert not naming.lists
    with pytest.raises(UnavailableError):
        await registry.adapter.forward(registry.permit(registry.request(line), b"", naming), upstream)
    assert upstream.requests == []


async def test_more_owners_than_can_be_read_stop_the_request(registry: Any, scripted: Any) -> None:
    many = json.dumps({"model_versions": [{**FV, "source": "x"}], "next_page_token": "t"}).encode()
    for script in (lambda _: (200, many), lambda _: (500, b"{}"), lambda _: (200, b"no json")):
        with pytest.raises(UnavailableError):
            await registry.refined(f"GET {IN_LOGGED}", b"", scripted(script))


@pytest.mark.parametrize(
    "path",
    [
        "x",
        "7",
        f"7/{RUN}",
        "7/models/x/artifacts/a",
        f"7/{RUN}/artifacts/../x",
        f"7/{RUN}/artifacts//x",
        f"7/{RUN}/artifacts/a%252e",
        f"../7/{RUN}/artifacts",
        f"7/{RUN}/artifacts/a%23b",
        f"7/{RUN}/artifacts/a%5Cb",
        f"x7/{RUN}/artifacts/a",
        f"07/{RUN}/artifacts/a",
        f"7/{RUN}/artifacts/a%3Bb",
        f"7/{RUN}/artifacts/a%00",
    ],
)
def test_an_artifact_path_that_is_nobodys_or_two_things_is_refused(registry: Any, path: str) -> None:
    for line in (f"GET {ART}/{path}", f"PUT {ART}/{path}", f"GET {ART}?path={path}"):
        with pytest.raises(InvalidRequestError):
            registry.name(line, b"")
    if "%" in path:
        with pytest.raises(InvalidRequestError):
            registry.name(f"GET {ART}?path={path.replace('%', '%25')}", b"")


def test_an_artifact_takes_no_query_and_no_body(registry: Any) -> None:
    with pytest.raises(InvalidRequestError):
        registry.name(f"GET {IN_RUN}?path=other", b"")
    with pytest.raises(InvalidRequestError):
        registry.name(f"GET {IN_RUN}", b"x")


async def test_an_upload_streams_to_the_same_path(registry: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, b"{}"))
    assert registry.adapter.body_need(registry.request(f"PUT {IN_RUN}")) is BodyNeed.STREAM
    assert registry.adapter.body_need(registry.request(f"POST {API}/runs/create")) is BodyNeed.WHOLE
    await registry.forward(f"PUT {IN_RUN}", upstream, b"weights", headers=[("content-length", "7")])
    sent: UpstreamRequest = upstream.requests[-1]
    assert (sent.method, sent.target, sent.content_length) == ("PUT", IN_RUN, 7)
    assert b"".join([chunk async for chunk in sent.body]) == b"weights"  # type: ignore[union-attr]  # streamed


# What comes back


async def test_the_authorised_bytes_are_the_bytes_sent(registry: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, b"{}"))
    content = b' {"value" : "v","key":"k", "name":"fraud"}'
    await registry.forward(route("POST registered-models/set-tag"), upstream, content)
    assert upstream.requests[0].body == content
    await registry.forward(route("GET registered-models/get?name=fr%61ud"), scripted(lambda _: (200, b"{}")))


async def test_headers_that_choose_a_workspace_do_not_pass(registry: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (200, b"{}"))
    given = [("x-mlflow-workspace", "other"), ("authorization", "Bearer dw_x")]
    await registry.forward(route("GET model-versions/get?name=fraud&version=3"), upstream, headers=given)
    assert {name for name, _ in upstream.requests[0].headers} == {"content-type", "accept-encoding"}


def as_json(document: Any) -> Any:
    return lambda _: (200, json.dumps(document).encode())


async def test_a_model_is_shown_without_its_hidden_versions(registry: Any, scripted: Any) -> None:
    model = {
        "name": "fraud",
        "latest_versions": [{**FV}, {"name": "fraud", "version": "4"}],
        "aliases": [{"alias": "a", "version": "3"}, {"alias": "b", "version": "4"}],
    }
    _, content, _ = await registry.forward(
        route("GET registered-models/get?name=fraud"),
        scripted(as_json({"registered_model": model})),
        hidden=[VERSION],
    )
    assert json.loads(content) == {
        "registered_model": {
            "name": "fraud",
            "latest_versions": [{"name": "fraud", "version": "4"}],
            "aliases": [{"alias": "b", "version": "4"}],
        }
    }


async def test_an_alias_of_a_hidden_version_is_an_alias_that_does_not_exist(
    registry: Any, scripted: Any
) -> None:
    line = route("GET registered-models/alias?name=fraud&alias=champion")
    answer, content, _ = await registry.forward(
        line, scripted(as_json({"model_version": FV})), hidden=[VERSION]
    )
    assert answer.status == 400
    assert json.loads(content)["message"] == "Registered model alias champion not found."


async def test_what_lies_in_a_hidden_experiment_does_not_exist(registry: Any, scripted: Any) -> None:
    run = {"run": {"info": {"run_id": RUN, "experiment_id": "7"}}}
    answer, content, _ = await registry.forward(
        route(f"GET runs/get?run_id={RUN}"), scripted(as_json(run)), hidden=[EXP]
    )
    assert (answer.status, json.loads(content)["message"]) == (404, f"Run with id={RUN} not found")
    named = {"experiment": {"experiment_id": "7", "name": "secret"}}
    line = route("GET experiments/get-by-name?experiment_name=secret")
    answer, content, _ = await registry.forward(line, scripted(as_json(named)), hidden=[EXP])
    assert (answer.status, json.loads(content)["message"]) == (
        404,
        "Could not find experiment with name 'secret'",
    )


def test_hidden_names_get_mlflows_own_words(registry: Any) -> None:
    line = route("PATCH model-versions/update")
    answer = registry.adapter.not_found(registry.request(line), registry.name(line, body(**FV)), "r")
    assert answer.status == 404
    assert answer.body == (
        b'{"error_code": "RESOURCE_DOES_NOT_EXIST", '
        b'"message": "Model Version (name=fraud, version=3) not found", '
        b'"sqlstate": "KAM00", "error_class": "RESOURCE_NOT_FOUND"}'
    )


def test_a_refusal_is_mlflows_error_object(registry: Any) -> None:
    for status, code in (
        (403, "PERMISSION_DENIED"),
        (429, "REQUEST_LIMIT_EXCEEDED"),
        (503, "TEMPORARILY_UNAVAILABLE"),
    ):
        refused = Refusal(status=status, code="x", title="T", detail="You may not deploy it.", request_id="r")
        answer = registry.adapter.refuse(registry.request(route("POST runs/create")), refused)
        assert (answer.status, json.loads(answer.body)) == (
            status,
            {"error_code": code, "message": "You may not deploy it."},
        )


# Pages


def paged_upstream(names: list[str], hidden: set[str]) -> Any:
    """List registered models as MLflow does: offsets as tokens."""
    del hidden

    def script(request: UpstreamRequest) -> tuple[int, bytes]:
        query = parse_qs(urlsplit(request.target).query)
        size = int(query["max_results"][0])
        token = query.get("page_token", [None])[0]
        start = json.loads(base64.b64decode(token))["offset"] if token else 0
        document: dict[str, Any] = {
            "registered_models": [{"name": name} for name in names[start : start + size]]
        }
        if start + size < len(names):
            document["next_page_token"] = base64.b64encode(
                json.dumps({"offset": start + size}).encode()
            ).decode()
        return 200, json.dumps(document).encode()

    return script


async def pages(registry: Any, scripted: Any, names: list[str], hidden: set[str], size: int) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        line = route(
            f"GET registered-models/search?max_results={size}" + (f"&page_token={token}" if token else "")
        )
        unseen = [f'Model::"registry/{name}"' for name in hidden]
        _, content, outcome = await registry.forward(
            line, scripted(paged_upstream(names, hidden)), hidden=unseen
        )
        found.append((json.loads(content), outcome))
        token = json.loads(content).get("next_page_token", "")
        if not token:
            return found


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1000])
async def test_pages_over_hidden_entries_are_those_of_a_registry_without_them(
    registry: Any, scripted: Any, size: int
) -> None:
    names = [f"m{number}" for number in range(230)]
    hidden = {name for number, name in enumerate(names) if number % 37 != 5}
    with_hidden = [page for page, _ in await pages(registry, scripted, names, hidden, size)]
    without = [
        page
        for page, _ in await pages(registry, scripted, [n for n in names if n not in hidden], set(), size)
    ]
    assert with_hidden == without
    assert [m["name"] for page in with_hidden for m in page["registered_models"]] == [
        f"m{n}" for n in range(5, 230, 37)
    ]


async def test_a_search_that_shows_nothing_is_an_empty_object(registry: Any, scripted: Any) -> None:
    ((page, outcome),) = await pages(registry, scripted, ["a", "b"], {"a", "b"}, 10)
    assert page == {}
    assert outcome == {"shown": 0, "hidden": 2}


async def test_entries_that_cannot_be_named_are_not_shown(registry: Any, scripted: Any) -> None:
    odd = {"registered_models": [{}, None, {"name": 7}, {"name": "a/b"}, {"name": "ok"}]}
    _, content, _ = await registry.forward(route("GET registered-models/search"), scripted(as_json(odd)))
    assert json.loads(content) == {"registered_models": [{"name": "ok"}]}


async def test_runs_are_shown_only_with_their_experiment(registry: Any, scripted: Any) -> None:
    runs = {
        "runs": [
            {"info": {"run_id": RUN, "experiment_id": "7"}},
            {"info": {"run_id": RUN2, "experiment_id": "8"}},
        ]
    }
    upstream = scripted(as_json(runs))
    _, content, _ = await registry.forward(
        route("POST runs/search"), upstream, body(experiment_ids=["7", "8"], max_results=5), hidden=[EXP]
    )
    assert [run["info"]["run_id"] for run in json.loads(content)["runs"]] == [RUN2]
    assert json.loads(upstream.requests[0].body)["experiment_ids"] == ["7", "8"]


@pytest.mark.parametrize(
    "token", ["x", "e30=", "bnVsbA==", base64.b64encode(b'{"offset":-1}').decode(), "[]"]
)
async def test_a_page_token_that_was_not_given_out_is_refused(
    registry: Any, scripted: Any, token: str
) -> None:
    with pytest.raises(InvalidRequestError, match="page_token"):
        await registry.forward(
            route(f"GET registered-models/search?page_token={token}"), scripted(as_json({}))
        )


@pytest.mark.parametrize("size", ["0", "-1", "x", "1001", "1e3", "9" * 30, "\u00b2"])
async def test_a_page_size_out_of_bounds_is_refused(registry: Any, scripted: Any, size: str) -> None:
    with pytest.raises(InvalidRequestError, match="max_results"):
        await registry.forward(
            route(f"GET registered-models/search?max_results={size}"), scripted(as_json({}))
        )


async def test_an_error_of_a_search_passes_natively(registry: Any, scripted: Any) -> None:
    upstream = scripted(lambda _: (400, b'{"error_code":"INVALID_PARAMETER_VALUE"}'))
    answer, content, _ = await registry.forward(route("GET model-versions/search?filter=bad"), upstream)
    assert (answer.status, content) == (400, b'{"error_code":"INVALID_PARAMETER_VALUE"}')
