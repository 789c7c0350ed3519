"""Every route and field of the installed MLflow was looked at: a new version that adds one fails here.

What is denied is denied without this list too; the list says that somebody decided so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.protos import databricks_pb2, mlflow_artifacts_pb2, model_registry_pb2, service_pb2
from mlflow.server import app, handlers
from mlflow.server.fastapi_app import create_fastapi_app

from doorward.gateway.protocols.mlflow_routes import API, ARTIFACTS, ROUTES, find

DENIED = Path(__file__).with_name("mlflow_denied_routes.txt")
# Served by the protocol file itself, not from the table.
BY_PATH = {
    f"GET {ARTIFACTS}",
    f"GET {ARTIFACTS}/<path>",
    f"PUT {ARTIFACTS}/<path>",
    f"DELETE {ARTIFACTS}/<path>",
}
# Fields that exist and are refused: they reach outside what is governed, or start jobs elsewhere.
DENIED_FIELDS = {
    ("POST", f"{API}/registered-models/create", "deployment_job_id"),
    ("PATCH", f"{API}/registered-models/update", "deployment_job_id"),
}


def plain(path: str) -> str:
    return re.sub(
        r"<(?:path:)?(\w+)>", lambda m: "<path>" if "artifact_path" in m[1] else f"{{{m[1]}}}", path
    )


def served() -> set[str]:
    """Return what both of MLflow's applications serve: `METHOD path`."""
    lines = {f"{method} {plain(path)}" for path, _, methods in handlers.get_endpoints() for method in methods}
    for rule in app.url_map.iter_rules():
        lines |= {f"{method} {plain(rule.rule)}" for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return lines | set(served_beside())


def served_beside() -> Iterator[str]:
    for path, operations in create_fastapi_app().openapi()["paths"].items():
        for method in operations:
            yield f"{method.upper()} {path.replace('{artifact_path}', '<path>')}"


def denied() -> set[str]:
    lines = (line.split("#")[0].strip() for line in DENIED.read_text().splitlines())
    return {line for line in lines if line}


def mapped() -> set[str]:
    return {f"{route.method} {route.path}" for route in ROUTES} | BY_PATH


def test_every_route_is_mapped_or_was_denied_on_purpose() -> None:
    assert sorted(served() - mapped() - denied()) == []


def test_no_route_is_both_mapped_and_denied_and_none_is_mapped_that_does_not_exist() -> None:
    assert sorted(mapped() & denied()) == []
    assert sorted(mapped() - served()) == []


def test_the_list_of_denied_routes_names_only_routes_that_exist() -> None:
    assert sorted(denied() - served()) == []


def test_a_denied_route_is_found_under_no_method() -> None:
    for line in denied():
        method, path = line.split(" ")
        assert find(method, path) is None
        assert not path.startswith(ARTIFACTS)


def declared() -> Iterator[tuple[str, str, set[str]]]:
    for module in (service_pb2, model_registry_pb2, mlflow_artifacts_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
                    names = {field.name for field in method.input_type.fields}
                    yield endpoint.method, f"/api/{endpoint.since.major}.0{endpoint.path}", names


def test_every_field_of_a_mapped_route_is_allowed_or_was_denied_on_purpose() -> None:
    fields = {(method, path): names for method, path, names in declared()}
    missing = [
        (route.method, route.path, name)
        for route in ROUTES
        for name in fields[(route.method, route.path)] - route.fields
    ]
    assert sorted(set(missing) - DENIED_FIELDS) == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_no_field_is_allowed_that_the_route_does_not_have(route: object) -> None:
    fields = {(method, path): names for method, path, names in declared()}
    extra = {"run_uuid"} if route.path.endswith("runs/delete") else set()  # type: ignore[attr-defined]  # a Route
    assert route.fields <= fields[(route.method, route.path)] | extra  # type: ignore[attr-defined]  # a Route
