"""What the conditions of one policy saw on one request, clause by clause: the grounds of an explanation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from doorward.cedar import closures
from doorward.cedar.data import Fault
from doorward.cedar.env import Env
from doorward.cedar.words import shown, written

_VARIABLES = frozenset({"principal", "resource", "context"})


class Clause(msgspec.Struct, frozen=True):
    """One condition that did not hold: its tree, and whether it stood under `unless`."""

    tree: Mapping[str, Any]
    unless: bool = False
    error: str = ""

    @property
    def text(self) -> str:
        """Return the clause as Cedar."""
        return f"!({written(self.tree)})" if self.unless else written(self.tree)


def failed(tree: Mapping[str, Any], env: Env) -> tuple[Clause, ...]:
    """Return the clauses that do not hold, each tried by itself; empty where all of them do.

    One that errs counts only if nothing before it failed: `x has a && x.a > 1` fails for want of `a`.
    """
    found: list[Clause] = []
    for condition in tree["conditions"]:
        unless = condition["kind"] == "unless"
        for part in [condition["body"]] if unless else closures.chain("&&", condition["body"]):
            try:
                held = closures.compiled(part)(env) is not unless
            except Fault as fault:
                if not found:
                    found.append(Clause(part, unless, str(fault)))
                continue
            if not held:
                found.append(Clause(part, unless))
    return tuple(found)


def seen(tree: Any, env: Env) -> dict[str, str]:
    """Return every attribute that conditions name with its value as text, `missing` where there is none."""
    values: dict[str, str] = {}
    for path in _paths(tree):
        name = written(path)
        if name not in values:
            values[name] = value(path, env)
    return values


def value(path: Mapping[str, Any], env: Env) -> str:
    """Return what an expression is worth here, as text; `missing` where it has no value."""
    try:
        return shown(closures.compiled(path)(env))
    except Fault:
        return "missing"


def _paths(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Yield attributes of principal, resource and context as far as they are named: `context.device.id`."""
    match tree:
        case list():
            for part in tree:
                yield from _paths(part)
        case {".": {"left": left}} if _rooted(left):
            yield tree
        case {"has": {"left": left, "attr": name}} if _rooted(left):
            yield {".": {"left": left, "attr": name}}
        case dict():
            for part in tree.values():
                yield from _paths(part)


def _rooted(tree: Mapping[str, Any]) -> bool:
    while "." in tree:
        tree = tree["."]["left"]
    return tree.get("Var") in _VARIABLES
