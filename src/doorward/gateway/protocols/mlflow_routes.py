"""The routes of MLflow's REST API that are understood; nothing else passes."""

from __future__ import annotations

import re

import msgspec

from doorward.core.model import Action
from doorward.gateway.protocols.mlflow_calls import (
    Asks,
    Call,
    Kind,
    Subject,
    artifacts_of,
    change_logged,
    create_experiment,
    create_logged,
    create_model,
    create_run,
    create_version,
    delete_alias,
    histories,
    log_batch,
    log_inputs,
    log_metric,
    log_outputs,
    nothing,
    one,
    rename,
    search_logged,
    set_alias,
    transition,
)

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"

V, M, D = Action.VIEW, Action.MODIFY, Action.DELETE


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One route: method, path below the upstream, allowed fields, what it asks, what its answer needs.

    `pending`: what it asks depends on the upstream's state and is completed by the adapter's `refine`.
    """

    method: str
    path: str
    fields: frozenset[str]
    asks: Asks
    subject: Subject
    kind: Kind = Kind.PASS
    pending: bool = False
    repeated: frozenset[str] = frozenset()


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


_EXP, _RUN, _MOD, _VER = Subject.EXPERIMENT, Subject.RUN, Subject.MODEL, Subject.VERSION
_LOG, _NIL = Subject.LOGGED_MODEL, Subject.NOTHING
_PAGED = "filter max_results page_token order_by"
_RUN_KEYS = "run_id run_uuid"
# A line: method and path, allowed fields, what it asks, the not-found sentence, what the answer needs.
ROUTES: tuple[Route, ...] = (
    _route("POST experiments/create", "name tags artifact_location", create_experiment, _NIL),
    _route("GET experiments/get", "experiment_id", one(V, Call.experiment), _EXP),
    _route("GET experiments/get-by-name", "experiment_name",
           nothing, Subject.EXPERIMENT_NAME, Kind.EXPERIMENT),
    _route("GET experiments/search", f"{_PAGED} view_type", nothing, _NIL, Kind.SEARCH, repeated="order_by"),
    _route("POST experiments/search", f"{_PAGED} view_type", nothing, _NIL, Kind.SEARCH),
    _route("POST experiments/update", "experiment_id new_name", one(M, Call.experiment), _EXP),
    _route("POST experiments/delete", "experiment_id", one(D, Call.experiment), _EXP),
    _route("POST experiments/restore", "experiment_id", one(M, Call.experiment), _EXP),
    _route("POST experiments/set-experiment-tag", "experiment_id key value", one(M, Call.experiment), _EXP),
    _route("POST experiments/delete-experiment-tag", "experiment_id key", one(M, Call.experiment), _EXP),
    _route("POST runs/create", "experiment_id user_id run_name start_time tags", create_run, _EXP),
    _route("GET runs/get", _RUN_KEYS, one(V, Call.run), _RUN, Kind.RUN),
    _route("POST runs/search", f"{_PAGED} experiment_ids run_view_type", nothing, _NIL, Kind.SEARCH),
    _route("POST runs/update", f"{_RUN_KEYS} status end_time run_name", one(M, Call.run), _RUN),
    _route("POST runs/delete", "run_id", one(D, Call.run), _RUN),
    _route("POST runs/restore", "run_id", one(M, Call.run), _RUN),
    _route("POST runs/log-metric",
           f"{_RUN_KEYS} key value timestamp step model_id dataset_name dataset_digest", log_metric, _RUN),
    _route("POST runs/log-parameter", f"{_RUN_KEYS} key value", one(M, Call.run), _RUN),
    _route("POST runs/set-tag", f"{_RUN_KEYS} key value", one(M, Call.run), _RUN),
    _route("POST runs/delete-tag", "run_id key", one(M, Call.run), _RUN),
    _route("POST runs/log-batch", "run_id metrics params tags", log_batch, _RUN),
    _route("POST runs/log-model", "run_id model_json", one(M, Call.run), _RUN),
    _route("POST runs/log-inputs", "run_id datasets models", log_inputs, _RUN),
    _route("POST runs/outputs", "run_id models", log_outputs, _RUN),
    _route("GET metrics/get-history", f"{_RUN_KEYS} metric_key page_token max_results", one(V, Call.run),
           _NIL),
    _route("GET metrics/get-history-bulk-interval", "run_ids metric_key start_step end_step max_results",
           histories, _NIL, repeated="run_ids"),
    _route("GET artifacts/list", f"{_RUN_KEYS} path page_token", artifacts_of, _RUN),
    _route("POST registered-models/create", "name tags description", create_model, _MOD, Kind.MODEL),
    _route("GET registered-models/get", "name", one(V, Call.model), _MOD, Kind.MODEL),
    _route("GET registered-models/search", _PAGED, nothing, _NIL, Kind.SEARCH, repeated="order_by"),
    _route("POST registered-models/rename", "name new_name", rename, _MOD, Kind.MODEL),
    _route("PATCH registered-models/update", "name description", one(M, Call.model), _MOD, Kind.MODEL),
    _route("DELETE registered-models/delete", "name", one(D, Call.model), _MOD),
    _route("GET registered-models/get-latest-versions", "name stages",
           one(V, Call.model), _MOD, Kind.VERSIONS,
           repeated="stages"),
    _route("POST registered-models/get-latest-versions", "name stages",
           one(V, Call.model), _MOD, Kind.VERSIONS),
    _route("POST registered-models/set-tag", "name key value", one(M, Call.model), _MOD),
    _route("DELETE registered-models/delete-tag", "name key", one(M, Call.model), _MOD),
    _route("POST registered-models/alias", "name alias version", set_alias, _VER),
    _route("DELETE registered-models/alias", "name alias", delete_alias, _MOD),
    _route("GET registered-models/alias", "name alias", one(V, Call.model), _MOD, Kind.VERSION),
    _route("POST model-versions/create", "name source run_id run_link description tags model_id",
           create_version, _MOD),
    _route("GET model-versions/get", "name version", one(V, Call.version), _VER),
    _route("GET model-versions/search", _PAGED, nothing, _NIL, Kind.SEARCH, repeated="order_by"),
    _route("PATCH model-versions/update", "name version description", one(M, Call.version), _VER),
    _route("DELETE model-versions/delete", "name version", one(D, Call.version), _VER),
    _route("POST model-versions/transition-stage", "name version stage archive_existing_versions",
           transition, _VER, pending=True),
    _route("GET model-versions/get-download-uri", "name version", one(V, Call.version), _VER),
    _route("POST model-versions/set-tag", "name version key value", one(M, Call.version), _VER),
    _route("DELETE model-versions/delete-tag", "name version key", one(M, Call.version), _VER),
    _route("POST logged-models", "experiment_id name model_type source_run_id params tags",
           create_logged, _EXP),
    _route("POST logged-models/search", f"{_PAGED} experiment_ids datasets", search_logged, _NIL,
           Kind.SEARCH),
    _route("GET logged-models/{model_id}", "model_id", one(V, Call.logged_model), _LOG, Kind.LOGGED_MODEL,
           pending=True),
    _route("PATCH logged-models/{model_id}", "model_id status", change_logged, _LOG, pending=True),
    _route("DELETE logged-models/{model_id}", "model_id", one(D, Call.logged_model), _LOG, pending=True),
    _route("PATCH logged-models/{model_id}/tags", "model_id tags", change_logged, _LOG, pending=True),
    _route("DELETE logged-models/{model_id}/tags/{tag_key}", "model_id tag_key", change_logged, _LOG,
           pending=True),
    _route("POST logged-models/{model_id}/params", "model_id params", change_logged, _LOG, pending=True),
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
