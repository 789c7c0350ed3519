"""A real MLflow server behind the MLflow protocol file, used by the stock client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException

from doorward.gateway.protocols.mlflow import MlflowAdapter
from doorward.settings import UpstreamSettings
from support.adapter_door import AdapterDoor, free_port, running, served, settings_of

RUN = "0123456789abcdef0123456789abcdef"
LOGGED = f"m-{RUN}"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamSettings]:
    folder: Path = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{folder}/m.db",
        "--artifacts-destination",
        f"file://{folder}/artifacts",
    ]
    with running(
        command,
        ready=f"http://127.0.0.1:{port}/health",
        seconds=90,
        log=folder / "log",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    ):
        yield settings_of("registry", "mlflow", port)


@pytest.fixture(scope="module")
def serving(upstream: UpstreamSettings) -> Iterator[AdapterDoor]:
    with served(AdapterDoor(MlflowAdapter(upstream))) as door:
        yield door


@pytest.fixture
def door(serving: AdapterDoor, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdapterDoor]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", serving.url)
    yield serving
    serving.forgets()


@pytest.fixture
def client(door: AdapterDoor) -> MlflowClient:
    return MlflowClient(tracking_uri=door.url, registry_uri=door.url)


@pytest.fixture
def direct(upstream: UpstreamSettings, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return MlflowClient(tracking_uri=upstream.url, registry_uri=upstream.url)


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        del context, params
        return model_input


@pytest.fixture(scope="module")
def detector(upstream: UpstreamSettings) -> str:
    """Register a model directly, as before the door was there; return the id of its logged model."""
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(upstream.url)
    try:
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(
                name="echo", python_model=Echo(), registered_model_name="detector", pip_requirements=[]
            )
    finally:
        mlflow.set_tracking_uri(previous)
    return str(info.model_id)


def send(url: str, line: str, fields: dict[str, Any] | None = None) -> tuple[int, bytes, str]:
    method, path = line.split(" ", 1)
    data = None if fields is None else json.dumps(fields).encode()
    request = urllib.request.Request(url + path, data=data, method=method)  # noqa: S310 -- loopback
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- loopback
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["Content-Type"]


def test_a_stock_client_registers_promotes_and_searches(door: AdapterDoor, client: MlflowClient) -> None:
    client.create_registered_model("fraud", tags={"team": "risk"}, description="scores")
    run = client.create_run(client.create_experiment("training"))
    version = client.create_model_version("fraud", f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    client.set_registered_model_alias("fraud", "champion", version.version)
    client.transition_model_version_stage("fraud", version.version, "Staging")
    client.transition_model_version_stage("fraud", version.version, "Archived")
    client.set_model_version_tag("fraud", version.version, "checked", "yes")
    client.update_registered_model("fraud", description="scores payments")
    assert client.get_model_version_by_alias("fraud", "champion").version == version.version
    assert [model.name for model in client.search_registered_models("name = 'fraud'")] == ["fraud"]
    assert client.get_latest_versions("fraud")
    client.delete_registered_model_alias("fraud", "champion")
    client.rename_registered_model("fraud", "fraud-2")
    client.delete_model_version("fraud-2", version.version)
    client.delete_registered_model("fraud-2")
    assert door.unknown == []
    assert [asked for asked in door.seen if asked.startswith("deploy")] == [
        'deploy Model::"registry/fraud/1"',
        'deploy Model::"registry/fraud/1"',
        'deploy Model::"registry/fraud/1"',
        'deploy Model::"registry/fraud"',
    ]


def test_a_stock_client_tracks_a_run_and_reads_it_back(
    door: AdapterDoor, client: MlflowClient, tmp_path: Path
) -> None:
    mlflow.set_tracking_uri(door.url)
    (tmp_path / "notes.txt").write_text("hello")
    with mlflow.start_run(experiment_id=client.create_experiment("tracked")) as run:
        mlflow.log_params({"depth": 3})
        mlflow.log_metric("auc", 0.9, step=1)
        mlflow.log_metrics({"auc": 0.95}, step=2)
        mlflow.set_tag("owner", "dana")
        mlflow.log_artifact(str(tmp_path / "notes.txt"), "docs")
        info = mlflow.pyfunc.log_model(
            name="echo", python_model=Echo(), registered_model_name="echo", pip_requirements=[]
        )
    read = client.get_run(run.info.run_id)
    assert (read.data.params, read.data.metrics["auc"]) == ({"depth": "3"}, 0.95)
    assert len(client.get_metric_history(run.info.run_id, "auc")) == 2
    assert [item.path for item in client.list_artifacts(run.info.run_id, "docs")] == ["docs/notes.txt"]
    assert Path(client.download_artifacts(run.info.run_id, "docs/notes.txt")).read_text() == "hello"
    assert [found.info.run_id for found in client.search_runs([run.info.experiment_id])] == [run.info.run_id]
    assert mlflow.pyfunc.load_model("models:/echo/1").predict(["x"]) == ["x"]
    assert mlflow.pyfunc.load_model(info.model_uri).predict(["x"]) == ["x"]
    assert client.search_logged_models([run.info.experiment_id])
    assert set(door.unknown) <= {"GET /api/3.0/mlflow/server-info"}
    assert 'export Model::"registry/echo/1"' in door.seen


def test_the_bytes_of_a_registered_model_need_its_own_permission(
    door: AdapterDoor, client: MlflowClient, detector: str
) -> None:
    mlflow.set_tracking_uri(door.url)
    door.denied.add('export Model::"registry/detector/1"')
    for address in ("models:/detector/1", f"models:/{detector}"):
        with pytest.raises(MlflowException, match=r"may not export|PERMISSION_DENIED|403"):
            mlflow.artifacts.download_artifacts(address)
    assert client.get_model_version("detector", "1").version == "1"


def test_its_bytes_cannot_be_replaced_by_whoever_may_only_modify(door: AdapterDoor, detector: str) -> None:
    door.denied.add('deploy Model::"registry/detector/1"')
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/models/{detector}/artifacts/MLmodel"
    assert send(door.url, f"PUT {path}", {"evil": 1})[0] == 403
    assert b"evil" not in send(door.url, f"GET {path}")[1]


def test_the_stock_client_prints_the_sentence_of_a_refusal(
    door: AdapterDoor, client: MlflowClient, detector: str
) -> None:
    assert detector
    door.denied.add('deploy Model::"registry/detector/1"')
    with pytest.raises(RestException, match="Use your managed laptop") as refused:
        client.transition_model_version_stage("detector", "1", "Production")
    assert refused.value.error_code == "PERMISSION_DENIED"
    with pytest.raises(RestException, match="PERMISSION_DENIED"):
        client.set_registered_model_alias("detector", "champion", "1")
    client.set_registered_model_alias("detector", "candidate", "1")


def test_lists_leave_out_what_is_hidden_page_by_page(
    door: AdapterDoor, client: MlflowClient, direct: MlflowClient
) -> None:
    for number in range(7):
        direct.create_registered_model(f"page-{number}")
    door.hidden.update(f'Model::"registry/page-{number}"' for number in (0, 2, 3, 5, 6))
    names, token = [], None
    while True:
        page = client.search_registered_models("name LIKE 'page-%'", max_results=1, page_token=token)
        names.append([model.name for model in page])
        token = page.token
        if not token:
            break
    assert names == [["page-1"], ["page-4"]]
    for number in range(7):
        direct.delete_registered_model(f"page-{number}")


# The same request for a name that does not exist, asked directly, is the oracle for a hidden one.
NOWHERE: list[tuple[str, dict[str, Any] | None, str]] = [
    ("GET registered-models/get?name=nope", None, "registry/nope"),
    ("PATCH registered-models/update", {"name": "nope", "description": "x"}, "registry/nope"),
    ("POST registered-models/rename", {"name": "nope", "new_name": "y"}, "registry/nope"),
    ("DELETE registered-models/delete", {"name": "nope"}, "registry/nope"),
    ("POST registered-models/set-tag", {"name": "nope", "key": "a", "value": "b"}, "registry/nope"),
    ("DELETE registered-models/delete-tag", {"name": "nope", "key": "a"}, "registry/nope"),
    (
        "POST registered-models/alias",
        {"name": "nope", "alias": "champion", "version": "1"},
        "registry/nope/1",
    ),
    ("DELETE registered-models/alias", {"name": "nope", "alias": "champion"}, "registry/nope"),
    ("GET registered-models/alias?name=nope&alias=champion", None, "registry/nope"),
    ("POST registered-models/get-latest-versions", {"name": "nope"}, "registry/nope"),
    ("GET model-versions/get?name=nope&version=1", None, "registry/nope/1"),
    ("PATCH model-versions/update", {"name": "nope", "version": "1", "description": "x"}, "registry/nope/1"),
    (
        "POST model-versions/transition-stage",
        {"name": "nope", "version": "1", "stage": "production"},
        "registry/nope/1",
    ),
    ("DELETE model-versions/delete", {"name": "nope", "version": "1"}, "registry/nope/1"),
    ("GET model-versions/get-download-uri?name=nope&version=1", None, "registry/nope/1"),
    (
        "POST model-versions/set-tag",
        {"name": "nope", "version": "1", "key": "a", "value": "b"},
        "registry/nope/1",
    ),
    ("GET experiments/get?experiment_id=77", None, "registry/experiments/77"),
    ("GET experiments/get-by-name?experiment_name=nope", None, ""),
    ("POST experiments/update", {"experiment_id": "77", "new_name": "k"}, "registry/experiments/77"),
    ("POST experiments/delete", {"experiment_id": "77"}, "registry/experiments/77"),
    ("POST runs/create", {"experiment_id": "77"}, "registry/experiments/77"),
    ("POST logged-models", {"experiment_id": "77"}, "registry/experiments/77"),
    (f"GET runs/get?run_id={RUN}", None, f"registry/runs/{RUN}"),
    ("POST runs/log-metric", {"run_id": RUN, "key": "k", "value": 1, "timestamp": 1}, f"registry/runs/{RUN}"),
    ("POST runs/log-parameter", {"run_id": RUN, "key": "k", "value": "1"}, f"registry/runs/{RUN}"),
    ("POST runs/log-batch", {"run_id": RUN, "metrics": []}, f"registry/runs/{RUN}"),
    ("POST runs/log-inputs", {"run_id": RUN}, f"registry/runs/{RUN}"),
    ("POST runs/set-tag", {"run_id": RUN, "key": "k", "value": "1"}, f"registry/runs/{RUN}"),
    ("POST runs/update", {"run_id": RUN, "status": "FINISHED"}, f"registry/runs/{RUN}"),
    ("POST runs/delete", {"run_id": RUN}, f"registry/runs/{RUN}"),
    ("POST runs/search", {"experiment_ids": ["77"]}, ""),
    (f"GET artifacts/list?run_id={RUN}", None, f"registry/runs/{RUN}"),
    (f"GET metrics/get-history?run_id={RUN}&metric_key=k", None, f"registry/runs/{RUN}"),
    (f"GET logged-models/{LOGGED}", None, f"registry/logged-models/{LOGGED}"),
    (
        f"PATCH logged-models/{LOGGED}",
        {"model_id": LOGGED, "status": "LOGGED_MODEL_READY"},
        f"registry/logged-models/{LOGGED}",
    ),
    (f"GET ../mlflow-artifacts/artifacts/0/{RUN}/artifacts/x", None, f"registry/runs/{RUN}"),
    (f"GET ../mlflow-artifacts/artifacts?path=0/{RUN}/artifacts", None, f"registry/runs/{RUN}"),
]


@pytest.mark.parametrize(("line", "fields", "hidden"), NOWHERE, ids=[row[0][:60] for row in NOWHERE])
def test_a_hidden_name_gets_byte_for_byte_what_a_missing_one_gets(
    door: AdapterDoor, upstream: UpstreamSettings, line: str, fields: dict[str, Any] | None, hidden: str
) -> None:
    method, path = line.split(" ", 1)
    full = f"{method} /api/2.0/mlflow/{path}".replace("mlflow/../", "")
    kind = "Dataset" if "/runs/" in hidden or "/experiments/" in hidden else "Model"
    door.hidden.update({f'{kind}::"{hidden}"'} if hidden else set())
    assert send(door.url, full, fields) == send(upstream.url, full, fields)


def test_an_allowed_request_for_a_missing_name_is_answered_by_the_upstream_itself(
    door: AdapterDoor, upstream: UpstreamSettings
) -> None:
    line = "GET /api/2.0/mlflow/registered-models/get?name=nope"
    assert send(door.url, line) == send(upstream.url, line)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": "detector", "source": "http://169.254.169.254/"}, "outside the governed stores"),
        ({"name": "detector", "source": "file:///etc/passwd"}, "outside the governed stores"),
        ({"name": "detector", "Name": "x", "source": "models:/a/1"}, "can be read as"),
    ],
)
def test_a_malformed_request_never_reaches_the_server(door: AdapterDoor, fields: Any, sentence: str) -> None:
    status, content, _ = send(door.url, "POST /api/2.0/mlflow/model-versions/create", fields)
    assert status == 400
    assert json.loads(content)["error_code"] == "INVALID_PARAMETER_VALUE"
    assert sentence in json.loads(content)["message"]
    assert door.seen == []
