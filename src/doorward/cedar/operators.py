"""Tier 0's operators of two arguments, both evaluated, left before right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doorward.cedar.data import CedarSet, Datetime, Duration, Fault, equal, key, long
from doorward.cedar.env import Env, Expr, existing, wrong
from doorward.cedar.world import World
from doorward.core.model import EntityUid


def contained(left: Any, right: Any, world: World) -> bool:
    """Return what `left in right` says."""
    if type(left) is not EntityUid:
        raise wrong("entity", left)
    if type(right) is EntityUid:
        if left == right:
            return True
        node = world.node(left)
        return node is not None and right in node.ancestors
    if type(right) is not CedarSet:
        raise wrong("entity or set of entities", right)
    for item in right.items:
        if type(item) is not EntityUid:
            raise wrong("entity", item)
    if left in right.items:
        return True
    node = world.node(left)
    return node is not None and not right.items.isdisjoint(node.ancestors)


def _compare(form: str) -> Callable[[Expr, Expr], Expr]:
    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> bool:
            a, b = left(env), right(env)
            if type(a) not in _ORDERED or type(a) is not type(b):
                raise wrong("long", b if type(a) is int else a)
            return _ORDER[form](a, b)

        return evaluate

    return build


_ORDERED = frozenset({int, Datetime, Duration})
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _arithmetic(form: str) -> Callable[[Expr, Expr], Expr]:
    compute = _ARITHMETIC[form]

    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> int:
            a, b = left(env), right(env)
            if type(a) is not int or type(b) is not int:
                raise wrong("long", b if type(a) is int else a)
            return long(compute(a, b))

        return evaluate

    return build


def _equality(left: Expr, right: Expr) -> Expr:
    return lambda env: equal(left(env), right(env))


def _inequality(left: Expr, right: Expr) -> Expr:
    return lambda env: not equal(left(env), right(env))


def _in(left: Expr, right: Expr) -> Expr:
    return lambda env: contained(left(env), right(env), env.world)


def _contains(left: Expr, right: Expr) -> Expr:
    def evaluate(env: Env) -> bool:
        a, b = left(env), right(env)
        if type(a) is not CedarSet:
            raise wrong("set", a)
        return key(b) in a.items

    return evaluate


def _contains_many(*, every: bool) -> Callable[[Expr, Expr], Expr]:
    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> bool:
            a, b = left(env), right(env)
            if type(a) is not CedarSet or type(b) is not CedarSet:
                raise wrong("set", b if type(a) is CedarSet else a)
            return b.items <= a.items if every else not b.items.isdisjoint(a.items)

        return evaluate

    return build


def _tag(*, get: bool) -> Callable[[Expr, Expr], Expr]:
    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> Any:
            a, b = left(env), right(env)
            if type(a) is not EntityUid:
                raise wrong("entity", a)
            if type(b) is not str:
                raise wrong("string", b)
            if not get:
                node = env.world.node(a)
                return node is not None and b in node.tags
            tags = existing(a, env).tags
            if b not in tags:
                raise Fault(f"`{a.cedar}` does not have the tag `{b}`")
            return tags[b]

        return evaluate

    return build


BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "==": _equality,
    "!=": _inequality,
    **{form: _compare(form) for form in _ORDER},
    **{form: _arithmetic(form) for form in _ARITHMETIC},
    "in": _in,
    "contains": _contains,
    "containsAll": _contains_many(every=True),
    "containsAny": _contains_many(every=False),
    "hasTag": _tag(get=False),
    "getTag": _tag(get=True),
}
