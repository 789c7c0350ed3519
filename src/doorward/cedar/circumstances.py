"""How generated code reads a request's `Context`: field by field, without making a record of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from doorward.cedar import types
from doorward.cedar.contexts import Checker, Reader, hints_of, is_struct
from doorward.cedar.data import Fault, moment, network, set_of
from doorward.cedar.types import BOOL, DATETIME, LONG, NETWORK, STRING, EntityType, Field, RecordType, Type
from doorward.core.context import Context

Name = Callable[[Any], str]
Written = tuple[str, Type | None]
_NOTHING = set_of(())


class Part(msgspec.Struct, frozen=True):
    """A struct of the context: how its source reads, its class, and what the schema says of it."""

    code: str
    kind: type[msgspec.Struct]
    fields: Mapping[str, Field]


class Circumstances:
    """Write the reading of contexts that `check` passed; where it cannot, `read` makes the record."""

    def __init__(self, wanted: RecordType, check: Checker, read: Reader) -> None:
        """Keep the type of the context and the functions that look it over."""
        self._wanted = wanted
        self.check = check
        self.read = read

    def part(self, tree: Mapping[str, Any]) -> Part | None:
        """Return the part an expression names, None if it names none."""
        match tree:
            case {"Var": "context"}:
                return Part("c", Context, self._wanted.fields)
            case {".": {"left": left, "attr": name}}:
                outer = self.part(left)
                hint = None if outer is None or name not in outer.fields else hints_of(outer.kind).get(name)
                if outer is not None and hint is not None and is_struct(hint):
                    inner = outer.fields[name].type
                    return (
                        Part(f"{outer.code}.{name}", hint, inner.fields)
                        if isinstance(inner, RecordType)
                        else None
                    )
        return None

    def has(self, part: Part, name: str) -> Written:
        """Write whether an attribute is there."""
        field, hint = part.fields.get(name), hints_of(part.kind).get(name)
        if field is None or hint is None:
            return "False", BOOL
        if field.required or is_struct(hint):
            return "True", BOOL
        return f"({part.code}.{name} is not None)", BOOL

    def value(self, part: Part, name: str, named: Name, kept: set[str]) -> Written | None:
        """Write an attribute's value, None where only the record has it.

        Locals that hold converted values go into `kept`: they must be None at first.
        """
        field, hint = part.fields.get(name), hints_of(part.kind).get(name)
        if field is None or hint is None or is_struct(hint):
            return None
        raw = f"{part.code}.{name}"
        if field.type in _PLAIN or isinstance(field.type, EntityType):
            return (raw if field.required else f"{named(_there)}({raw})"), field.type
        local = raw.replace(".", "_")
        kept.add(local)
        made = f"{named(_conversion(field.type))}({raw})"
        return f"({local} if {local} is not None else ({local} := {made}))", field.type


_PLAIN = frozenset({BOOL, LONG, STRING})


def _there(value: Any) -> Any:
    if value is None:
        raise Fault("the context does not have the attribute")
    return value


def _conversion(wanted: Type) -> Callable[[Any], Any]:
    """Return what brings a value of the house, never None, into the evaluator's form."""
    if wanted == DATETIME:
        return moment
    if wanted == NETWORK:
        return network
    return lambda value: _NOTHING if value == _EMPTY else types.taken(_there(value), wanted, "context")


_EMPTY: frozenset[Any] = frozenset()
