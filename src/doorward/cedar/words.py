"""Write trees and values of the evaluator as a person reads them: Cedar, with the short names of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from doorward.cedar.data import CedarSet, Datetime, Duration, Fixed, Network
from doorward.core.model import NAMESPACE, EntityUid

_INFIX = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*"})
_TIGHT = frozenset({"Var", "Value", ".", "Set", "Record"})
_MOST_ITEMS = 8
_SCALE = 10_000
_V4 = 4
_EPOCH = datetime.fromtimestamp(0, UTC)


def written(tree: Mapping[str, Any]) -> str:  # noqa: C901, PLR0911, PLR0912 -- one case per form
    """Return an expression as Cedar text; what it means is what matters, not how it was spaced."""
    ((form, body),) = tree.items()
    match form:
        case "Var":
            return str(body)
        case "Value":
            return _literal(body)
        case "&&" | "||":
            return f"{_inside(body['left'], form)} {form} {_inside(body['right'], form)}"
        case "!":
            return f"!{_tight(body['arg'])}"
        case "neg":
            return f"-{_tight(body['arg'])}"
        case "if-then-else":
            return f"if {written(body['if'])} then {written(body['then'])} else {written(body['else'])}"
        case "Set":
            return f"[{', '.join(map(written, body))}]"
        case "Record":
            return "{" + ", ".join(f"{json.dumps(k)}: {written(v)}" for k, v in body.items()) + "}"
        case ".":
            return f"{_tight(body['left'])}.{body['attr']}"
        case "has":
            return f"{_tight(body['left'])} has {body['attr']}"
        case "is":
            within = f" in {_tight(body['in'])}" if "in" in body else ""
            return f"{_tight(body['left'])} is {_short(body['entity_type'])}{within}"
        case "like":
            return f"{_tight(body['left'])} like {_pattern(body['pattern'])}"
    if form in _INFIX:
        return f"{_tight(body['left'])} {form} {_tight(body['right'])}"
    return _called(form, body)


def shown(value: Any) -> str:  # noqa: PLR0911 -- one case per kind of value
    """Return a value of the evaluator as text; long sets are cut."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case EntityUid():
            return str(value)
        case CedarSet():
            items = sorted(map(_member, value.items))
            more = f", … ({len(items)} in all)" if len(items) > _MOST_ITEMS else ""
            return f"[{', '.join(items[:_MOST_ITEMS])}{more}]"
        case Datetime():
            return f"{_EPOCH + timedelta(milliseconds=value.ms):%Y-%m-%d %H:%M:%S} UTC"
        case Duration():
            return str(timedelta(milliseconds=value.ms))
        case Fixed():
            return f"{value.units / _SCALE:.4f}"
        case Network():
            address = (IPv4Address if value.version == _V4 else IPv6Address)(value.address)
            return str(address) if value.prefix == address.max_prefixlen else f"{address}/{value.prefix}"
        case dict():
            return "{" + ", ".join(f"{name}: {shown(item)}" for name, item in value.items()) + "}"
    return str(value)


def _member(key: Any) -> str:
    """Return a member of a set, which is kept as a key (`data.key`)."""
    match key:
        case ("bool", held):
            return str(held).lower()
        case ("record", fields):
            return "{" + ", ".join(sorted(f"{name}: {_member(item)}" for name, item in fields)) + "}"
    return shown(key)


def _literal(body: Any) -> str:
    match body:
        case bool():
            return str(body).lower()
        case {"__entity": {"type": kind, "id": name}}:
            return str(EntityUid(kind, name))
        case {"__extn": {"fn": function, "arg": argument}}:
            return f"{function}({_literal(argument)})"
        case list():
            return f"[{', '.join(map(_literal, body))}]"
    return json.dumps(body, ensure_ascii=False)


def _called(form: str, body: Any) -> str:
    if isinstance(body, Sequence):
        first, *rest = [written(part) for part in body]
        return f"{form}({first})" if not rest else f"{first}.{form}({', '.join(rest)})"
    if "arg" in body:
        return f"{_tight(body['arg'])}.{form}()"
    return f"{_tight(body['left'])}.{form}({written(body['right'])})"


def _inside(tree: Mapping[str, Any], chain: str) -> str:
    other = {"&&": "||", "||": "&&"}[chain]
    return f"({written(tree)})" if other in tree or "if-then-else" in tree else written(tree)


def _tight(tree: Mapping[str, Any]) -> str:
    ((form, body),) = tree.items()
    call = form not in {"&&", "||", "!", "neg", "has", "is", "like", "if-then-else", *_INFIX}
    return written({form: body}) if form in _TIGHT or call else f"({written(tree)})"


def _pattern(parts: Sequence[Any]) -> str:
    text = "".join("*" if part == "Wildcard" else str(part["Literal"]).replace("*", r"\*") for part in parts)
    return json.dumps(text, ensure_ascii=False)


def _short(kind: str) -> str:
    return kind.removeprefix(f"{NAMESPACE}::")
