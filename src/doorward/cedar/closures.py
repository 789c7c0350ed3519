"""Tier 0: a policy's tree as composed functions, exact in every operator; what errs raises Fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from doorward.cedar import extensions
from doorward.cedar.data import CedarSet, Fault, long, set_of
from doorward.cedar.env import Constant, Env, Expr, existing, wrong
from doorward.cedar.like import matcher
from doorward.cedar.operators import BINARY, contained
from doorward.cedar.world import World
from doorward.core.model import EntityUid

_VARIABLES: dict[str, Expr] = {
    "principal": lambda env: env.principal,
    "action": lambda env: env.action,
    "resource": lambda env: env.resource,
    "context": lambda env: env.context,
}


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
    if form in BINARY:
        return BINARY[form](compiled(body["left"]), compiled(body["right"]))
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


def literal(body: Any) -> Any:  # noqa: PLR0911 -- one return per form
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


def _all(parts: list[Expr]) -> Expr:
    def evaluate(env: Env) -> bool:
        for part in parts:
            value = part(env)
            if value is False:
                return False
            if value is not True:
                raise wrong("bool", value)
        return True

    return evaluate


def _any(parts: list[Expr]) -> Expr:
    def evaluate(env: Env) -> bool:
        for part in parts:
            value = part(env)
            if value is True:
                return True
            if value is not False:
                raise wrong("bool", value)
        return False

    return evaluate


def _not(argument: Expr) -> Expr:
    def evaluate(env: Env) -> bool:
        value = argument(env)
        if value is True:
            return False
        if value is False:
            return True
        raise wrong("bool", value)

    return evaluate


def _negative(argument: Expr) -> Expr:
    def evaluate(env: Env) -> int:
        value = argument(env)
        if type(value) is not int:
            raise wrong("long", value)
        return long(-value)

    return evaluate


def _is_empty(argument: Expr) -> Expr:
    def evaluate(env: Env) -> bool:
        value = argument(env)
        if type(value) is not CedarSet:
            raise wrong("set", value)
        return not value.items

    return evaluate


def _branch(test: Expr, then: Expr, otherwise: Expr) -> Expr:
    def evaluate(env: Env) -> Any:
        value = test(env)
        if value is True:
            return then(env)
        if value is False:
            return otherwise(env)
        raise wrong("bool", value)

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


def _attribute(left: Expr, name: str) -> Expr:
    def evaluate(env: Env) -> Any:
        value = left(env)
        if type(value) is EntityUid:
            fields = existing(value, env).attrs
            if name not in fields:
                raise Fault(f"`{value.cedar}` does not have the attribute `{name}`")
        elif type(value) is dict:
            fields = value
            if name not in fields:
                raise Fault(f"record does not have the attribute `{name}`")
        else:
            raise wrong("entity or record", value)
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
        raise wrong("entity or record", value)

    return evaluate


def _is(left: Expr, wanted: str, within: Expr | None) -> Expr:
    def evaluate(env: Env) -> bool:
        value = left(env)
        if type(value) is not EntityUid:
            raise wrong("entity", value)
        if value.type != wanted:
            return False
        return True if within is None else contained(value, within(env), env.world)

    return evaluate


def _like(left: Expr, pattern: list[Any]) -> Expr:
    matches = matcher(pattern)

    def evaluate(env: Env) -> bool:
        value = left(env)
        if type(value) is not str:
            raise wrong("string", value)
        return matches(value)

    return evaluate


_NOTHING = Env(EntityUid("", ""), EntityUid("", ""), EntityUid("", ""), {}, World(lambda _uid: None))
