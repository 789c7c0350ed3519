"""Tier 0: a policy's tree as composed functions, exact in every operator; what errs raises Fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from doorward.cedar import extensions
from doorward.cedar.data import CedarSet, Datetime, Duration, Fault, equal, key, kind, long, set_of
from doorward.cedar.like import matcher
from doorward.cedar.world import Node, World
from doorward.core.model import EntityUid


class Env:
    """What one evaluation reads: the request, its context, and the entities."""

    __slots__ = ("action", "context", "principal", "resource", "world")

    def __init__(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: Any, world: World
    ) -> None:
        """Keep them."""
        self.principal = principal
        self.action = action
        self.resource = resource
        self.context = context
        self.world = world


Expr = Callable[[Env], Any]
_VARIABLES: dict[str, Expr] = {
    "principal": lambda env: env.principal,
    "action": lambda env: env.action,
    "resource": lambda env: env.resource,
    "context": lambda env: env.context,
}


class Constant:
    """An expression whose value is known; kept as a class so that folding can see it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, _env: Env) -> Any:
        return self.value


def policy(tree: Mapping[str, Any]) -> Callable[[Env], bool]:
    """Compile the conditions of a policy whose scope holds; raise ValueError or KeyError for odd trees."""
    return _all([_condition(condition) for condition in tree["conditions"]])


def _condition(condition: Mapping[str, Any]) -> Expr:
    body = compiled(condition["body"])
    if condition["kind"] == "when":
        return body
    if condition["kind"] == "unless":
        return _not(body)
    raise ValueError(f"`{condition['kind']}` is no condition")


def compiled(tree: Mapping[str, Any]) -> Expr:  # noqa: PLR0911, PLR0912, C901 -- one case per form
    """Compile one expression of Cedar's JSON form."""
    ((form, body),) = tree.items()
    match form:
        case "Value":
            return _folded(lambda _env: literal(body))
        case "Var":
            return _VARIABLES[body]
        case "&&":
            return _all([compiled(part) for part in chain(form, tree)])
        case "||":
            return _any([compiled(part) for part in chain(form, tree)])
        case "!":
            return _not(compiled(body["arg"]))
        case "neg":
            return _negative(compiled(body["arg"]))
        case "isEmpty":
            return _is_empty(compiled(body["arg"]))
        case "if-then-else":
            return _branch(compiled(body["if"]), compiled(body["then"]), compiled(body["else"]))
        case "Set":
            return _set([compiled(item) for item in body])
        case "Record":
            return _record({name: compiled(item) for name, item in body.items()})
        case ".":
            return _attribute(compiled(body["left"]), body["attr"])
        case "has":
            return _has(compiled(body["left"]), body["attr"])
        case "is":
            within = compiled(body["in"]) if "in" in body else None
            return _is(compiled(body["left"]), body["entity_type"], within)
        case "like":
            return _like(compiled(body["left"]), body["pattern"])
    if form in _BINARY:
        return _BINARY[form](compiled(body["left"]), compiled(body["right"]))
    return _call(form, [compiled(item) for item in body])


def chain(form: str, tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the operands of a chain of one operator, left to right: depth would cost stack."""
    parts: list[Mapping[str, Any]] = []
    while form in tree:
        parts.append(tree[form]["right"])
        tree = tree[form]["left"]
    return [tree, *reversed(parts)]


def _folded(expression: Expr) -> Expr:
    """Return a constant when an expression of constants has a value; an error must wait for its turn."""
    try:
        return Constant(expression(_NOTHING))
    except Fault:
        return expression


def literal(body: Any) -> Any:
    """Return the value of a literal in a policy or in data: Cedar JSON, explicit forms."""
    match body:
        case bool() | str():
            return body
        case int():
            return long(body)
        case {"__entity": {"type": kind_, "id": name}}:
            return EntityUid(kind_, name)
        case {"__extn": {"fn": function, "arg": argument}}:
            return extensions.call(function, [literal(argument)])
        case {"__extn": {"fn": function, "args": arguments}}:
            return extensions.call(function, [literal(item) for item in arguments])
        case list():
            return set_of([literal(item) for item in body])
        case dict():
            return {name: literal(item) for name, item in body.items()}
    raise ValueError(f"`{body!r}` has no Cedar form")


def _wrong(expected: str, value: Any) -> Fault:
    return Fault(f"type error: expected {expected}, got {kind(value)}")


def _all(parts: list[Expr]) -> Expr:
    def evaluate(env: Env) -> bool:
        for part in parts:
            value = part(env)
            if value is False:
                return False
            if value is not True:
                raise _wrong("bool", value)
        return True

    return evaluate


def _any(parts: list[Expr]) -> Expr:
    def evaluate(env: Env) -> bool:
        for part in parts:
            value = part(env)
            if value is True:
                return True
            if value is not False:
                raise _wrong("bool", value)
        return False

    return evaluate


def _not(argument: Expr) -> Expr:
    def evaluate(env: Env) -> bool:
        value = argument(env)
        if value is True:
            return False
        if value is False:
            return True
        raise _wrong("bool", value)

    return evaluate


def _negative(argument: Expr) -> Expr:
    def evaluate(env: Env) -> int:
        value = argument(env)
        if type(value) is not int:
            raise _wrong("long", value)
        return long(-value)

    return evaluate


def _is_empty(argument: Expr) -> Expr:
    def evaluate(env: Env) -> bool:
        value = argument(env)
        if type(value) is not CedarSet:
            raise _wrong("set", value)
        return not value.items

    return evaluate


def _branch(test: Expr, then: Expr, otherwise: Expr) -> Expr:
    def evaluate(env: Env) -> Any:
        value = test(env)
        if value is True:
            return then(env)
        if value is False:
            return otherwise(env)
        raise _wrong("bool", value)

    return evaluate


def _set(items: list[Expr]) -> Expr:
    def evaluate(env: Env) -> CedarSet:
        return set_of([item(env) for item in items])

    return _folded(evaluate) if all(isinstance(item, Constant) for item in items) else evaluate


def _record(fields: dict[str, Expr]) -> Expr:
    def evaluate(env: Env) -> dict[str, Any]:
        return {name: item(env) for name, item in fields.items()}

    return evaluate


def _call(name: str, arguments: list[Expr]) -> Expr:
    if name not in extensions.FUNCTIONS:
        raise ValueError(f"`{name}` is no function")

    def evaluate(env: Env) -> Any:
        return extensions.call(name, [argument(env) for argument in arguments])

    known = all(isinstance(item, Constant) for item in arguments)
    return _folded(evaluate) if known else evaluate


def _existing(uid: EntityUid, env: Env) -> Node:
    node = env.world.node(uid)
    if node is None:
        raise Fault(f"entity `{uid.cedar}` does not exist")
    return node


def _attribute(left: Expr, name: str) -> Expr:
    def evaluate(env: Env) -> Any:
        value = left(env)
        if type(value) is EntityUid:
            fields = _existing(value, env).attrs
            if name not in fields:
                raise Fault(f"`{value.cedar}` does not have the attribute `{name}`")
        elif type(value) is dict:
            fields = value
            if name not in fields:
                raise Fault(f"record does not have the attribute `{name}`")
        else:
            raise _wrong("entity or record", value)
        return fields[name]

    return evaluate


def _has(left: Expr, name: str) -> Expr:
    def evaluate(env: Env) -> bool:
        value = left(env)
        if type(value) is EntityUid:
            node = env.world.node(value)
            return node is not None and name in node.attrs
        if type(value) is dict:
            return name in value
        raise _wrong("entity or record", value)

    return evaluate


def _is(left: Expr, wanted: str, within: Expr | None) -> Expr:
    def evaluate(env: Env) -> bool:
        value = left(env)
        if type(value) is not EntityUid:
            raise _wrong("entity", value)
        if value.type != wanted:
            return False
        return True if within is None else contained(value, within(env), env)

    return evaluate


def _like(left: Expr, pattern: list[Any]) -> Expr:
    matches = matcher(pattern)

    def evaluate(env: Env) -> bool:
        value = left(env)
        if type(value) is not str:
            raise _wrong("string", value)
        return matches(value)

    return evaluate


def contained(left: Any, right: Any, env: Env) -> bool:
    """Return what `left in right` says."""
    if type(left) is not EntityUid:
        raise _wrong("entity", left)
    if type(right) is EntityUid:
        if left == right:
            return True
        node = env.world.node(left)
        return node is not None and right in node.ancestors
    if type(right) is not CedarSet:
        raise _wrong("entity or set of entities", right)
    for item in right.items:
        if type(item) is not EntityUid:
            raise _wrong("entity", item)
    if left in right.items:
        return True
    node = env.world.node(left)
    return node is not None and not right.items.isdisjoint(node.ancestors)


def _compare(form: str) -> Callable[[Expr, Expr], Expr]:
    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> bool:
            a, b = left(env), right(env)
            if type(a) not in _ORDERED or type(a) is not type(b):
                raise _wrong("long", b if type(a) is int else a)
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
                raise _wrong("long", b if type(a) is int else a)
            return long(compute(a, b))

        return evaluate

    return build


def _equality(left: Expr, right: Expr) -> Expr:
    return lambda env: equal(left(env), right(env))


def _inequality(left: Expr, right: Expr) -> Expr:
    return lambda env: not equal(left(env), right(env))


def _in(left: Expr, right: Expr) -> Expr:
    return lambda env: contained(left(env), right(env), env)


def _contains(left: Expr, right: Expr) -> Expr:
    def evaluate(env: Env) -> bool:
        a, b = left(env), right(env)
        if type(a) is not CedarSet:
            raise _wrong("set", a)
        return key(b) in a.items

    return evaluate


def _contains_many(*, every: bool) -> Callable[[Expr, Expr], Expr]:
    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> bool:
            a, b = left(env), right(env)
            if type(a) is not CedarSet or type(b) is not CedarSet:
                raise _wrong("set", b if type(a) is CedarSet else a)
            return b.items <= a.items if every else not b.items.isdisjoint(a.items)

        return evaluate

    return build


def _tag(*, get: bool) -> Callable[[Expr, Expr], Expr]:
    def build(left: Expr, right: Expr) -> Expr:
        def evaluate(env: Env) -> Any:
            a, b = left(env), right(env)
            if type(a) is not EntityUid:
                raise _wrong("entity", a)
            if type(b) is not str:
                raise _wrong("string", b)
            if not get:
                node = env.world.node(a)
                return node is not None and b in node.tags
            tags = _existing(a, env).tags
            if b not in tags:
                raise Fault(f"`{a.cedar}` does not have the tag `{b}`")
            return tags[b]

        return evaluate

    return build


_BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
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
_NOTHING = Env(EntityUid("", ""), EntityUid("", ""), EntityUid("", ""), {}, World({}.get))
