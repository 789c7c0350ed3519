"""How a policy may turn out when the context is not known: the question behind "does it exist for her".

The evaluation is exact where everything is known and otherwise gives every outcome that some context
could bring about, and possibly more, never fewer. Calls of extension types (`ip`, `datetime`,
`decimal`, `duration`) count as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from doorward.core.model import EntityUid

if TYPE_CHECKING:
    from doorward.core.model import Entity

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1


class Outcome(msgspec.Struct, frozen=True):
    """Say which of true, false and error can happen."""

    true: bool
    false: bool
    error: bool


class Known(Protocol):
    """The entities an evaluation may read."""

    @property
    def entities(self) -> Mapping[EntityUid, Entity]:
        """Return the entities by uid."""

    def above(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Return the ancestors of `uid`."""


ANYTHING = Outcome(true=True, false=True, error=True)
_TRUE = Outcome(true=True, false=False, error=False)
_FALSE = Outcome(true=False, false=True, error=False)
_FAULT = Outcome(true=False, false=False, error=True)
_TRUE_OR_FAULT = Outcome(true=True, false=False, error=True)
_FALSE_OR_FAULT = Outcome(true=False, false=True, error=True)


class _Fault(Exception):  # noqa: N818 -- a value of the evaluation, not a failure of ours
    """The expression errs, whatever the context."""


def possible(
    tree: Mapping[str, Any], principal: EntityUid, action: EntityUid, resource: EntityUid, known: Known
) -> Outcome:
    """Return how the conditions of a policy, whose scope holds, may turn out over all contexts."""
    return _Reader(known, {"principal": principal, "action": action, "resource": resource}).policy(tree)


def certain(tree: Mapping[str, Any], variables: Mapping[str, Any], known: Known) -> Outcome:
    """Return how the conditions turn out when every variable, the context too, has a value."""
    return _Reader(known, variables).policy(tree)


class _Reader:
    """Evaluates expressions to values or, where the context decides, to an `Outcome`."""

    def __init__(self, known: Known, variables: Mapping[str, Any]) -> None:
        self._known = known
        self._variables = variables

    def policy(self, tree: Mapping[str, Any]) -> Outcome:
        """Evaluate all conditions, left to right, as Cedar does."""
        result = _TRUE
        for condition in tree.get("conditions", ()):
            part = self.truth(condition["body"])
            if condition["kind"] == "unless":
                part = Outcome(true=part.false, false=part.true, error=part.error)
            result = _and(result, part)
        return result

    def truth(self, expression: Any) -> Outcome:
        """Evaluate where a boolean is needed; anything else is an error."""
        try:
            return _truth(self.value(expression))
        except _Fault:
            return _FAULT

    def value(self, expression: Mapping[str, Any]) -> Any:  # noqa: PLR0911, PLR0912, C901 -- one case per form
        """Return a value or an Outcome; raise _Fault when it errs for certain."""
        ((form, body),) = expression.items()
        match form:
            case "Value":
                return _literal(body)
            case "Var":
                return self._variables.get(body, ANYTHING)
            case "&&":
                left = self.truth(body["left"])
                return _known(_and(left, self.truth(body["right"]) if left.true else _FALSE))
            case "||":
                left = self.truth(body["left"])
                return _known(
                    _not(_and(_not(left), _not(self.truth(body["right"])) if left.false else _FALSE))
                )
            case "!":
                return _known(_not(self.truth(body["arg"])))
            case "if-then-else":
                return self._branch(body)
            case "Set":
                return self._set(body)
            case "Record":
                return self._record(body)
            case "." | "has":
                return self._attribute(form, body)
            case "is":
                return self._is(body)
            case "like":
                return self._like(body)
            case "neg" | "isEmpty":
                return self._unary(form, self.value(body["arg"]))
            case _ if isinstance(body, Mapping) and "left" in body:
                return _binary(form, self.value(body["left"]), self.value(body["right"]), self._known)
        for argument in body:  # an extension call: its arguments may err for certain
            self.value(argument)
        return ANYTHING

    def _branch(self, body: Mapping[str, Any]) -> Any:
        test = self.truth(body["if"])
        if not test.false and not test.error and test.true:
            return self.value(body["then"])
        if not test.true and not test.error and test.false:
            return self.value(body["else"])
        if not test.true and not test.false:
            raise _Fault
        branches = [body[name] for name, open_ in (("then", test.true), ("else", test.false)) if open_]
        outcomes = [self._outcome(branch) for branch in branches]
        return Outcome(
            true=any(o.true for o in outcomes),
            false=any(o.false for o in outcomes),
            error=test.error or any(o.error for o in outcomes),
        )

    def _outcome(self, expression: Any) -> Outcome:
        try:
            value = self.value(expression)
        except _Fault:
            return _FAULT
        if isinstance(value, Outcome):
            return value
        return _truth(value) if isinstance(value, bool) else ANYTHING

    def _set(self, body: Any) -> Any:
        values = [self.value(item) for item in body]
        return ANYTHING if any(_open(value) for value in values) else _Set(values)

    def _record(self, body: Any) -> Any:
        values = {name: self.value(item) for name, item in body.items()}
        return ANYTHING if any(_open(value) for value in values.values()) else values

    def _attribute(self, form: str, body: Any) -> Any:
        left, name = self.value(body["left"]), body["attr"]
        if isinstance(left, Outcome):
            return ANYTHING
        if isinstance(left, EntityUid):
            entity = self._known.entities.get(left)
            fields: Mapping[str, Any] = {} if entity is None else entity.attrs
        elif isinstance(left, Mapping):
            fields = left
        else:
            raise _Fault
        if form == "has":
            return name in fields
        if name not in fields:
            raise _Fault
        return _inside(fields[name])

    def _is(self, body: Any) -> Any:
        left = self.value(body["left"])
        within = self.value(body["in"]) if "in" in body and not isinstance(left, Outcome) else None
        if isinstance(left, Outcome):
            return ANYTHING
        if not isinstance(left, EntityUid):
            raise _Fault
        if left.type != body["entity_type"]:
            return False
        return True if within is None else _binary("in", left, within, self._known)

    def _like(self, body: Any) -> Any:
        left = self.value(body["left"])
        if isinstance(left, Outcome):
            return ANYTHING
        if not isinstance(left, str):
            raise _Fault
        return _matches(left, [None if part == "Wildcard" else part["Literal"] for part in body["pattern"]])

    def _unary(self, form: str, value: Any) -> Any:
        if isinstance(value, Outcome):
            return ANYTHING
        if form == "isEmpty" and isinstance(value, _Set):
            return not value.items
        if form == "neg" and type(value) is int:
            return _long(-value)
        raise _Fault


class _Set:
    """A Cedar set: compared by content, `true` and 1 being different."""

    __slots__ = ("items",)

    def __init__(self, values: Any) -> None:
        self.items = frozenset(_key(value) for value in values)


def _key(value: Any) -> Any:
    """Return something hashable that is equal exactly when Cedar says so."""
    if isinstance(value, _Set):
        return ("set", value.items)
    if isinstance(value, (frozenset, list)):
        return ("set", frozenset(_key(item) for item in value))
    if isinstance(value, Mapping):
        return ("record", frozenset((name, _key(item)) for name, item in value.items()))
    return (type(value).__name__, value)


def _inside(value: Any) -> Any:
    """Return an attribute's value as the evaluation holds it; extension values are not computed with."""
    if isinstance(value, frozenset):
        return _Set(value)
    if isinstance(value, (bool, int, str, EntityUid, Mapping)):
        return value
    return ANYTHING


def _open(value: Any) -> bool:
    return isinstance(value, Outcome)


def _literal(body: Any) -> Any:
    match body:
        case {"__entity": inner}:
            return EntityUid(inner["type"], inner["id"])
        case {"__extn": _}:
            return ANYTHING
        case list():
            values = [_literal(item) for item in body]
            return ANYTHING if any(_open(value) for value in values) else _Set(values)
        case dict():
            fields = {name: _literal(item) for name, item in body.items()}
            return ANYTHING if any(_open(value) for value in fields.values()) else fields
    return body


def _truth(value: Any) -> Outcome:
    if isinstance(value, Outcome):
        return value
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return _FAULT


def _known(outcome: Outcome) -> Any:
    """Return the plain value, or raise, where only one outcome is left."""
    if outcome == _TRUE:
        return True
    if outcome == _FALSE:
        return False
    if outcome == _FAULT:
        raise _Fault
    return outcome


def _not(outcome: Outcome) -> Outcome:
    return Outcome(true=outcome.false, false=outcome.true, error=outcome.error)


def _and(left: Outcome, right: Outcome) -> Outcome:
    return Outcome(
        true=left.true and right.true,
        false=left.false or (left.true and right.false),
        error=left.error or (left.true and right.error),
    )


def _long(value: int) -> int:
    if not _LONG_MIN <= value <= _LONG_MAX:
        raise _Fault
    return value


def _binary(form: str, left: Any, right: Any, known: Known) -> Any:  # noqa: PLR0911, C901 -- one per operator
    if form in {"contains", "containsAll", "containsAny"} and not _open(left) and not isinstance(left, _Set):
        raise _Fault
    if _open(left) or _open(right):
        nothing = isinstance(left, _Set) and not left.items
        return _FALSE_OR_FAULT if nothing and form in {"contains", "containsAny"} else ANYTHING
    match form:
        case "==":
            return _key(left) == _key(right)
        case "!=":
            return _key(left) != _key(right)
        case "<" | "<=" | ">" | ">=" | "+" | "-" | "*":
            return _arithmetic(form, left, right)
        case "in":
            return _in(left, right, known)
        case "contains":
            return _key(right) in left.items
        case "containsAll" | "containsAny":
            if not isinstance(right, _Set):
                raise _Fault
            return right.items <= left.items if form == "containsAll" else bool(right.items & left.items)
        case "hasTag" | "getTag":
            return _tag(form, left, right, known)
    return ANYTHING


def _arithmetic(form: str, left: Any, right: Any) -> Any:  # noqa: PLR0911 -- one return per operator
    if type(left) is not int or type(right) is not int:
        raise _Fault
    match form:
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
        case "+":
            return _long(left + right)
        case "-":
            return _long(left - right)
    return _long(left * right)


def _in(left: Any, right: Any, known: Known) -> bool:
    if not isinstance(left, EntityUid):
        raise _Fault
    if isinstance(right, EntityUid):
        wanted = {right}
    elif isinstance(right, _Set) and all(kind == "EntityUid" for kind, _ in right.items):
        wanted = {uid for _, uid in right.items}
    else:
        raise _Fault
    return left in wanted or not wanted.isdisjoint(known.above(left))


def _tag(form: str, left: Any, right: Any, known: Known) -> Any:
    if not isinstance(left, EntityUid) or not isinstance(right, str):
        raise _Fault
    entity = known.entities.get(left)
    tags: Mapping[str, Any] = {} if entity is None else entity.tags
    if form == "hasTag":
        return right in tags
    if right not in tags:
        raise _Fault
    return tags[right]


def _matches(text: str, pattern: list[str | None]) -> bool:
    """Match `like` in linear backtracking: only the last wildcard is ever tried again."""
    flat: list[str | None] = []
    for part in pattern:
        flat.extend([None] if part is None else part)
    at = to = 0
    star, mark = -1, 0
    while at < len(text):
        if to < len(flat) and flat[to] is None:
            star, mark = to, at
            to += 1
        elif to < len(flat) and flat[to] == text[at]:
            at += 1
            to += 1
        elif star >= 0:
            mark += 1
            at, to = mark, star + 1
        else:
            return False
    return all(part is None for part in flat[to:])
