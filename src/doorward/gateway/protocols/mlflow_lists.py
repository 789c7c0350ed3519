"""Filter MLflow's answers name by name, and page through what is left, so that nothing counts the hidden.

MLflow's page tokens are offsets into the whole list: passing them on would tell how many entries are
hidden. Pages are cut here instead, over the visible entries alone, with tokens of the same form.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from doorward.core.errors import DoorwardError, UnavailableError
from doorward.core.model import EntityUid
from doorward.core.wire import Answer, UpstreamAnswer, UpstreamClient, UpstreamRequest
from doorward.gateway.adapter import Permit
from doorward.gateway.protocols import passing
from doorward.gateway.protocols.mlflow_names import Names, refuse
from doorward.settings import UpstreamSettings

_OK = 200
_MAX_PAGES = 64
_MIN_PAGE = 100
_MAX_OFFSET = 10_000_000


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """One search: the key of its entries, the entries' names, default and largest page."""

    items: str
    names: Callable[[Names, Any], tuple[EntityUid, ...]]
    default: int
    largest: int


def _model_of(names: Names, item: Any) -> tuple[EntityUid, ...]:
    return (names.model(item["name"]),)


def _version_of(names: Names, item: Any) -> tuple[EntityUid, ...]:
    return (names.version(item["name"], item["version"]),)


def _experiment_of(names: Names, item: Any) -> tuple[EntityUid, ...]:
    return (names.experiment(item["experiment_id"]),)


def _run_of(names: Names, item: Any) -> tuple[EntityUid, ...]:
    info = item["info"]
    return (names.run(info["run_id"]), names.experiment(info["experiment_id"]))


def _logged_of(names: Names, item: Any) -> tuple[EntityUid, ...]:
    info = item["info"]
    return (names.logged_model(info["model_id"]), names.experiment(info["experiment_id"]))


SEARCHES: dict[str, Search] = {
    "registered-models/search": Search(items="registered_models", names=_model_of, default=100, largest=1000),
    "model-versions/search": Search(
        items="model_versions", names=_version_of, default=10_000, largest=200_000
    ),
    "experiments/search": Search(items="experiments", names=_experiment_of, default=1000, largest=50_000),
    "runs/search": Search(items="runs", names=_run_of, default=1000, largest=50_000),
    "logged-models/search": Search(items="models", names=_logged_of, default=100, largest=100),
}


class Viewer:
    """Show what one caller may view of an answer; what cannot be named is not shown."""

    def __init__(self, permit: Permit, names: Names) -> None:
        """Decide by the permit's `sees`."""
        self._permit = permit
        self._names = names

    def shows(self, item: Any, of: Callable[[Names, Any], tuple[EntityUid, ...]]) -> bool:
        """Return whether every name of an entry may be viewed."""
        try:
            return all(self._permit.sees(uid) for uid in of(self._names, item))
        except (DoorwardError, KeyError, TypeError):
            return False

    def model(self, item: Any) -> bool:
        """Return whether a registered model may be viewed; its hidden versions are taken out of it."""
        return self.shows(item, _model_of) and self.trims(item)

    def trims(self, item: Any) -> bool:
        """Take the hidden versions out of a registered model; return whether it is one."""
        if not isinstance(item, dict):
            return False
        for key in ("latest_versions", "aliases"):
            entries = item.pop(key, None)
            if not isinstance(entries, list):
                continue
            if kept := [entry for entry in entries if self.version(entry, name=item.get("name"))]:
                item[key] = kept
        return True

    def version(self, item: Any, *, name: str | None = None) -> bool:
        """Return whether a version may be viewed; `name` is the model of an alias entry."""
        if name is not None and isinstance(item, dict):
            item = {"version": item.get("version"), "name": name}
        return self.shows(item, _version_of)

    def experiment(self, item: Any) -> bool:
        """Return whether an experiment may be viewed."""
        return self.shows(item, _experiment_of)

    def lies_in_visible_experiment(self, item: Any) -> bool:
        """Return whether the experiment of a run or logged model may be viewed."""
        return isinstance(item, dict) and self.shows(item.get("info"), _experiment_of)


async def search(
    permit: Permit,
    upstream: UpstreamClient,
    *,
    settings: UpstreamSettings,
    route: str,
    fields: Mapping[str, Any],
) -> Answer:
    """Answer a search with one page of visible entries."""
    kind, names = SEARCHES[route], Names(settings.name)
    wanted, offset = _page_size(fields.get("max_results"), kind), _offset(fields.get("page_token"))
    viewer = Viewer(permit, names)
    page: list[Any] = []
    seen = hidden = 0
    token: str | None = None
    for _ in range(_MAX_PAGES):
        answer = await _page(permit, upstream, settings, fields=fields, token=token,
                             size=min(kind.largest, max(wanted + 1, _MIN_PAGE)))  # fmt: skip
        if answer.status != _OK:
            return passing.passed(answer)
        document = read_object(await passing.whole(answer, settings), settings)
        for item in document.get(kind.items) or []:
            visible = viewer.model(item) if kind.names is _model_of else viewer.shows(item, kind.names)
            hidden += not visible
            seen += visible
            if visible and seen > offset:
                page.append(item)
        token = document.get("next_page_token") or None
        if token is None or len(page) > wanted:
            permit.outcome.update(shown=min(len(page), wanted), hidden=hidden)
            return _answer(kind, page, wanted=wanted, offset=offset)
    return refuse("the search is too wide to be answered page by page", "Give a narrower filter.")


def _answer(kind: Search, page: list[Any], *, wanted: int, offset: int) -> Answer:
    document: dict[str, Any] = {}
    if shown := page[:wanted]:
        document[kind.items] = shown
    if len(page) > wanted:
        document["next_page_token"] = _token(offset + wanted)
    return json_answer(document)


def json_answer(document: Mapping[str, Any], status: int = _OK) -> Answer:
    """Return a document in MLflow's own JSON style."""
    body = json.dumps(document, indent=2).encode() if document else b"{}"
    return Answer(status=status, headers=[("content-type", "application/json")], body=body)


def read_object(content: bytes, settings: UpstreamSettings) -> dict[str, Any]:
    """Return the object an upstream answered; raise UnavailableError for anything else."""
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError:
        document = None
    if not isinstance(document, dict):
        raise UnavailableError(
            f"the upstream `{settings.name}` did not answer with a JSON object", code="upstream_unavailable"
        )
    return document


async def _page(  # noqa: PLR0913 -- one request of a series
    permit: Permit,
    upstream: UpstreamClient,
    settings: UpstreamSettings,
    *,
    fields: Mapping[str, Any],
    token: str | None,
    size: int,
) -> UpstreamAnswer:
    values = {key: value for key, value in fields.items() if key not in {"page_token", "max_results"}}
    values["max_results"] = size
    if token is not None:
        values["page_token"] = token
    path = permit.request.raw_path.removeprefix(f"/{settings.name}")
    return await ask(permit, upstream, settings, path=path, values=values)


async def ask(
    permit: Permit,
    upstream: UpstreamClient,
    settings: UpstreamSettings,
    *,
    path: str,
    values: Mapping[str, Any],
) -> UpstreamAnswer:
    """Send a request of our own making, from values that were authorised, the way the caller sent hers."""
    headers = passing.request_headers(permit.request)
    if permit.request.method == "GET":
        target = f"{path}?{urlencode(values, doseq=True)}"
        request = UpstreamRequest(method="GET", target=target, headers=headers, body=None)
    else:
        body = json.dumps(values).encode()
        request = UpstreamRequest(
            method="POST", target=path, headers=headers, body=body, content_length=len(body)
        )
    return await passing.checked(await upstream.send(request), settings)


def _page_size(value: Any, kind: Search) -> int:
    if value is None or value == "":
        return kind.default
    digits = str(value) if type(value) is int else value
    if not isinstance(digits, str) or not digits.isascii() or not digits.isdigit() or len(digits) > 9:  # noqa: PLR2004 -- no real page is larger
        refuse("`max_results` is not a whole number", "Give a number from 1.")
    if not 0 < int(digits) <= kind.largest:
        refuse(f"`max_results` must be from 1 to {kind.largest}", "Ask for a smaller page.")
    return int(digits)


def _token(offset: int) -> str:
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def _offset(token: Any) -> int:
    if token is None or token == "":
        return 0
    try:
        offset = json.loads(base64.b64decode(token, validate=True))["offset"]
    except (ValueError, TypeError, KeyError):
        offset = None
    if type(offset) is not int or not 0 <= offset <= _MAX_OFFSET:
        refuse("`page_token` was not given out here", "Start at the first page.")
    return offset
