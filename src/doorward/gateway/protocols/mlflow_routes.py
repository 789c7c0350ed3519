"""The routes of MLflow's REST API that are understood, each with what it does to what; nothing else passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum

import msgspec

from doorward.core.model import Action, EntityUid
from doorward.gateway.adapter import Ask
from doorward.gateway.protocols.mlflow_names import Fields, Names, refuse
from doorward.settings import UpstreamSettings

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

V, C, M, D = Action.VIEW, Action.CREATE, Action.MODIFY, Action.DELETE
_METRIC = {"key", "value", "timestamp", "step", "model_id", "dataset_name", "dataset_digest", "run_id"}
_PAIR = {"key", "value"}


class Kind(Enum):
    """Say what a route's answer needs before it may leave."""

    PASS = "pass"
    MODEL = "registered_model"
    VERSIONS = "model_versions"
    VERSION = "model_version"
    EXPERIMENT = "experiment"
    RUN = "run"
    LOGGED_MODEL = "model"
    SEARCH = "search"


class Subject(Enum):
    """Say which of MLflow's not-found sentences a route has."""

    MODEL = "Registered Model with name={name} not found"
    VERSION = "Model Version (name={name}, version={version}) not found"
    EXPERIMENT = "No Experiment with id={experiment_id} exists"
    EXPERIMENT_NAME = "Could not find experiment with name '{experiment_name}'"
    RUN = "Run with id={run_id} not found"
    LOGGED_MODEL = "Logged model with ID '{model_id}' not found."
    ARTIFACT = "No such artifact: '{path}'"
    NOTHING = ""


class Call(msgspec.Struct, frozen=True):
    """What a naming function reads: names, fields, and the upstream's deployed stages and aliases."""

    names: Names
    fields: Fields
    settings: UpstreamSettings

    def is_deployed_stage(self, stage: str) -> bool:
        """Return whether a stage counts as deployed; MLflow ignores its case."""
        return stage.casefold() in {name.casefold() for name in self.settings.deployed}

    def is_deployed_alias(self, alias: str) -> bool:
        """Return whether an alias counts as deployed."""
        return alias.casefold() in {name.casefold() for name in self.settings.deployed_aliases}

    def model(self) -> EntityUid:
        """Return the registered model that `name` names."""
        return self.names.model(self.fields.text("name"))

    def version(self) -> EntityUid:
        """Return the version that `name` and `version` name."""
        return self.names.version(self.fields.text("name"), self.fields.text("version"))

    def experiment(self) -> EntityUid:
        """Return the experiment that `experiment_id` names."""
        return self.names.experiment(self.fields.text("experiment_id"))

    def run(self) -> EntityUid:
        """Return the run that `run_id` (and `run_uuid`) names."""
        return self.names.run(self.fields.run_id())

    def logged_model(self) -> EntityUid:
        """Return the logged model that `model_id` names."""
        return self.names.logged_model(self.fields.text("model_id"))


Asks = Callable[[Call], tuple[Ask, ...]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route: method, path below the upstream, allowed fields, what it asks, what its answer needs.

    `pending`: what it asks depends on the upstream's state and is completed by the adapter's `resolve`.
    """

    method: str
    path: str
    fields: frozenset[str]
    asks: Asks
    subject: Subject
    kind: Kind = Kind.PASS
    pending: bool = False
    repeated: frozenset[str] = frozenset()


def _one(action: Action, what: Callable[[Call], EntityUid]) -> Asks:
    return lambda call: (Ask(action, what(call)),)


def _nothing(call: Call) -> tuple[Ask, ...]:  # noqa: ARG001 -- every name of the answer is decided instead
    return ()


def _rename(call: Call) -> tuple[Ask, ...]:
    return (Ask(M, call.model()), Ask(C, call.names.model(call.fields.text("new_name"))))


def _create_model(call: Call) -> tuple[Ask, ...]:
    call.fields.items("tags", _PAIR)
    return (Ask(C, call.model()),)


def _create_version(call: Call) -> tuple[Ask, ...]:
    fields, names = call.fields, call.names
    fields.items("tags", _PAIR)
    if (link := fields.maybe("run_link")) and not re.match(r"https?://", link):
        refuse("`run_link` is not an http address", "Leave it out.")
    # As with any copy: the source is read. What it is said to come from is named, and so must be visible.
    asks = [Ask(C, call.model()), Ask(Action.READ, names.source(fields.text("source")))]
    if run_id := fields.maybe("run_id"):
        asks.append(Ask(V, names.run(run_id)))
    if model_id := fields.maybe("model_id"):
        asks.append(Ask(V, names.logged_model(model_id)))
    return tuple(asks)


def _transition(call: Call) -> tuple[Ask, ...]:
    # Leaving a deployed stage changes what runs as much as entering one: until the current stage is known
    # (see `resolve`), every transition is a deployment.
    call.fields.text("stage")
    asks = (Ask(Action.DEPLOY, call.version()),)
    return (
        (*asks, Ask(Action.DEPLOY, call.model())) if call.fields.flag("archive_existing_versions") else asks
    )


def _set_alias(call: Call) -> tuple[Ask, ...]:
    deployed = call.is_deployed_alias(call.fields.text("alias"))
    return (Ask(Action.DEPLOY if deployed else M, call.version()),)


def _delete_alias(call: Call) -> tuple[Ask, ...]:
    deployed = call.is_deployed_alias(call.fields.text("alias"))
    return (Ask(Action.DEPLOY if deployed else M, call.model()),)


def _create_experiment(call: Call) -> tuple[Ask, ...]:
    call.fields.text("name")
    call.fields.items("tags", _PAIR)
    if call.fields.maybe("artifact_location"):
        refuse(
            "`artifact_location` would place artifacts outside the governed store",
            "Leave it out: the server chooses its own store.",
        )
    return (Ask(C, call.names.experiments()),)


def _create_run(call: Call) -> tuple[Ask, ...]:
    call.fields.items("tags", _PAIR)
    return (Ask(C, call.experiment()),)


def _log_metric(call: Call) -> tuple[Ask, ...]:
    model = call.fields.maybe("model_id")
    asks = (Ask(M, call.run()),)
    return (*asks, Ask(M, call.names.logged_model(model))) if model else asks


def _log_batch(call: Call) -> tuple[Ask, ...]:
    run = call.fields.run_id()
    for name in ("params", "tags"):
        call.fields.items(name, _PAIR)
    models = set()
    for metric in call.fields.items("metrics", _METRIC):
        if metric.get("run_id") not in (None, "", run):
            refuse("a metric names another run than the request", "Log one run at a time.")
        if metric.get("model_id"):
            models.add(call.names.logged_model(metric["model_id"]))
    return (Ask(M, call.run()), *(Ask(M, model) for model in sorted(models)))


def _log_inputs(call: Call) -> tuple[Ask, ...]:
    call.fields.items("datasets", {"tags", "dataset"})
    return (Ask(M, call.run()), *_models_of(call, V, {"model_id"}))


def _log_outputs(call: Call) -> tuple[Ask, ...]:
    return (Ask(M, call.run()), *_models_of(call, M, {"model_id", "step"}))


def _models_of(call: Call, action: Action, keys: set[str]) -> Iterator[Ask]:
    models = {call.names.logged_model(item.get("model_id")) for item in call.fields.items("models", keys)}
    return (Ask(action, model) for model in sorted(models))


def _histories(call: Call) -> tuple[Ask, ...]:
    runs = call.fields.texts("run_ids")
    if not runs:
        refuse("Missing value for required parameter 'run_ids'.", "Name at least one run.")
    return tuple(Ask(V, call.names.run(run)) for run in sorted(set(runs)))


def _create_logged(call: Call) -> tuple[Ask, ...]:
    for name in ("params", "tags"):
        call.fields.items(name, _PAIR)
    asks = (Ask(C, call.names.logged_models()), Ask(C, call.experiment()))
    run = call.fields.maybe("source_run_id")
    return (*asks, Ask(M, call.names.run(run))) if run else asks


def _change_logged(call: Call) -> tuple[Ask, ...]:
    for name in ("params", "tags"):
        call.fields.items(name, _PAIR)
    return (Ask(M, call.logged_model()),)


def _artifacts_of(call: Call) -> tuple[Ask, ...]:
    if call.fields.maybe("path"):
        call.names.artifact(f"0/{call.fields.run_id()}/artifacts/{call.fields.text('path')}")
    return (Ask(V, call.run()),)


def _search_logged(call: Call) -> tuple[Ask, ...]:
    call.fields.items("datasets", {"dataset_name", "dataset_digest"})
    call.fields.items("order_by", {"field_name", "ascending", "dataset_name", "dataset_digest"})
    return ()


def _route(  # noqa: PLR0913 -- one line of a table
    line: str,
    fields: str,
    asks: Asks,
    subject: Subject,
    kind: Kind = Kind.PASS,
    *,
    pending: bool = False,
    repeated: str = "",
) -> Route:
    method, path = line.split()
    return Route(
        method=method,
        path=f"{API}/{path}",
        fields=frozenset(fields.split()),
        asks=asks,
        subject=subject,
        kind=kind,
        pending=pending,
        repeated=frozenset(repeated.split()),
    )


_EXP, _RUN, _MOD, _VER, _LOG = (
    Subject.EXPERIMENT, Subject.RUN, Subject.MODEL, Subject.VERSION, Subject.LOGGED_MODEL,
)  # fmt: skip
_PAGED = "filter max_results page_token order_by"
_RUN_KEYS = "run_id run_uuid"
# A line: method and path, allowed fields, what it asks, the not-found sentence, what the answer needs.
ROUTES: tuple[Route, ...] = (
    _route("POST experiments/create", "name tags artifact_location", _create_experiment, Subject.NOTHING),
    _route("GET experiments/get", "experiment_id", _one(V, Call.experiment), _EXP),
    _route("GET experiments/get-by-name", "experiment_name", _nothing, Subject.EXPERIMENT_NAME, Kind.EXPERIMENT),
    _route("GET experiments/search", f"{_PAGED} view_type", _nothing, Subject.NOTHING, Kind.SEARCH, repeated="order_by"),
    _route("POST experiments/search", f"{_PAGED} view_type", _nothing, Subject.NOTHING, Kind.SEARCH),
    _route("POST experiments/update", "experiment_id new_name", _one(M, Call.experiment), _EXP),
    _route("POST experiments/delete", "experiment_id", _one(D, Call.experiment), _EXP),
    _route("POST experiments/restore", "experiment_id", _one(M, Call.experiment), _EXP),
    _route("POST experiments/set-experiment-tag", "experiment_id key value", _one(M, Call.experiment), _EXP),
    _route("POST experiments/delete-experiment-tag", "experiment_id key", _one(M, Call.experiment), _EXP),
    _route("POST runs/create", "experiment_id user_id run_name start_time tags", _create_run, _EXP),
    _route("GET runs/get", _RUN_KEYS, _one(V, Call.run), _RUN, Kind.RUN),
    _route("POST runs/search", f"{_PAGED} experiment_ids run_view_type", _nothing, Subject.NOTHING, Kind.SEARCH),
    _route("POST runs/update", f"{_RUN_KEYS} status end_time run_name", _one(M, Call.run), _RUN),
    _route("POST runs/delete", "run_id", _one(D, Call.run), _RUN),
    _route("POST runs/restore", "run_id", _one(M, Call.run), _RUN),
    _route("POST runs/log-metric",
           f"{_RUN_KEYS} key value timestamp step model_id dataset_name dataset_digest", _log_metric, _RUN),
    _route("POST runs/log-parameter", f"{_RUN_KEYS} key value", _one(M, Call.run), _RUN),
    _route("POST runs/set-tag", f"{_RUN_KEYS} key value", _one(M, Call.run), _RUN),
    _route("POST runs/delete-tag", "run_id key", _one(M, Call.run), _RUN),
    _route("POST runs/log-batch", "run_id metrics params tags", _log_batch, _RUN),
    _route("POST runs/log-model", "run_id model_json", _one(M, Call.run), _RUN),
    _route("POST runs/log-inputs", "run_id datasets models", _log_inputs, _RUN),
    _route("POST runs/outputs", "run_id models", _log_outputs, _RUN),
    _route("GET metrics/get-history", f"{_RUN_KEYS} metric_key page_token max_results", _one(V, Call.run),
           Subject.NOTHING),
    _route("GET metrics/get-history-bulk-interval", "run_ids metric_key start_step end_step max_results",
           _histories, Subject.NOTHING, repeated="run_ids"),
    _route("GET artifacts/list", f"{_RUN_KEYS} path page_token", _artifacts_of, _RUN),
    _route("POST registered-models/create", "name tags description", _create_model, _MOD, Kind.MODEL),
    _route("GET registered-models/get", "name", _one(V, Call.model), _MOD, Kind.MODEL),
    _route("GET registered-models/search", _PAGED, _nothing, Subject.NOTHING, Kind.SEARCH, repeated="order_by"),
    _route("POST registered-models/rename", "name new_name", _rename, _MOD, Kind.MODEL),
    _route("PATCH registered-models/update", "name description", _one(M, Call.model), _MOD, Kind.MODEL),
    _route("DELETE registered-models/delete", "name", _one(D, Call.model), _MOD),
    _route("GET registered-models/get-latest-versions", "name stages", _one(V, Call.model), _MOD, Kind.VERSIONS,
           repeated="stages"),
    _route("POST registered-models/get-latest-versions", "name stages", _one(V, Call.model), _MOD, Kind.VERSIONS),
    _route("POST registered-models/set-tag", "name key value", _one(M, Call.model), _MOD),
    _route("DELETE registered-models/delete-tag", "name key", _one(M, Call.model), _MOD),
    _route("POST registered-models/alias", "name alias version", _set_alias, _VER),
    _route("DELETE registered-models/alias", "name alias", _delete_alias, _MOD),
    _route("GET registered-models/alias", "name alias", _one(V, Call.model), _MOD, Kind.VERSION),
    _route("POST model-versions/create", "name source run_id run_link description tags model_id",
           _create_version, _MOD),
    _route("GET model-versions/get", "name version", _one(V, Call.version), _VER),
    _route("GET model-versions/search", _PAGED, _nothing, Subject.NOTHING, Kind.SEARCH, repeated="order_by"),
    _route("PATCH model-versions/update", "name version description", _one(M, Call.version), _VER),
    _route("DELETE model-versions/delete", "name version", _one(D, Call.version), _VER),
    _route("POST model-versions/transition-stage", "name version stage archive_existing_versions",
           _transition, _VER, pending=True),
    _route("GET model-versions/get-download-uri", "name version", _one(V, Call.version), _VER),
    _route("POST model-versions/set-tag", "name version key value", _one(M, Call.version), _VER),
    _route("DELETE model-versions/delete-tag", "name version key", _one(M, Call.version), _VER),
    _route("POST logged-models", "experiment_id name model_type source_run_id params tags", _create_logged, _EXP),
    _route("POST logged-models/search", f"{_PAGED} experiment_ids datasets", _search_logged, Subject.NOTHING,
           Kind.SEARCH),
    _route("GET logged-models/{model_id}", "model_id", _one(V, Call.logged_model), _LOG, Kind.LOGGED_MODEL,
           pending=True),
    _route("PATCH logged-models/{model_id}", "model_id status", _change_logged, _LOG, pending=True),
    _route("DELETE logged-models/{model_id}", "model_id", _one(D, Call.logged_model), _LOG, pending=True),
    _route("PATCH logged-models/{model_id}/tags", "model_id tags", _change_logged, _LOG, pending=True),
    _route("DELETE logged-models/{model_id}/tags/{tag_key}", "model_id tag_key", _change_logged, _LOG,
           pending=True),
    _route("POST logged-models/{model_id}/params", "model_id params", _change_logged, _LOG, pending=True),
)  # fmt: skip

_FIXED = {(route.method, route.path): route for route in ROUTES if "{" not in route.path}
_OPEN = tuple(
    (route, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path)))
    for route in ROUTES
    if "{" in route.path
)


def find(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """Return the route of a path below the upstream, with what its path names; None if there is none."""
    if (fixed := _FIXED.get((method, path))) is not None:
        return fixed, {}
    for route, form in _OPEN:
        if route.method == method and (match := form.fullmatch(path)) is not None:
            return route, match.groupdict()
    return None
