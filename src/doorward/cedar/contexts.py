"""Bring the circumstances of a request into the evaluator's form, checked against the schema.

For each type of context one function is generated that takes the usual values apart field by field;
whatever is not usual (odd types, text beyond ASCII, attributes the schema lacks) is left to `taken`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, get_type_hints

import msgspec

from doorward.cedar import types
from doorward.cedar.data import LONG_MAX, LONG_MIN, moment, network, set_of
from doorward.cedar.types import BOOL, DATETIME, LONG, NETWORK, STRING, EntityType, Field, RecordType, SetType
from doorward.core.context import Context
from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid

Reader = Callable[[Context], dict[str, Any]]
# True: the context is as the schema wants it; False or an error: it is odd, and a reader must say.
Checker = Callable[[Context], bool]

# Sizes, counts and ages lie in here; larger numbers are compared with the real bounds.
_USUAL_LONG = 2**30 - 1


def reader(wanted: RecordType, reads: frozenset[str] | None = None) -> Reader:
    """Return a function from a context to its record, which raises InvalidRequestError on a wrong type.

    All of it is checked; only the attributes in `reads` need be in the record, None means all.
    """

    def slow(context: Context) -> dict[str, Any]:
        record: dict[str, Any] = types.taken(context.to_record(), wanted, "context")
        return record

    writer = _Writer(slow)
    try:
        body = list(writer.struct("c", Context, wanted, reads))
    except _UnusualError:
        return slow
    lines = "\n".join(f"    {line}" for line in body)
    source = f"def read(c):\n{lines}\n    return r_c\n"
    exec(compile(source, "<context reader>", "exec"), writer.names)  # noqa: S102 -- our field names; the schema's only as literals
    made: Reader = writer.names["read"]
    return made


def checker(wanted: RecordType) -> Checker | None:
    """Return a function that tells usual contexts; None where the schema wants more than ours ever have."""
    writer = _Writer(lambda _context: {})
    try:
        body = list(writer.checks("c", Context, wanted))
    except _UnusualError:
        return None
    lines = "\n".join(f"    {line}" for line in body)
    source = f"def check(c):\n{lines}\n    return True\n"
    exec(compile(source, "<context checker>", "exec"), writer.names)  # noqa: S102 -- as `reader`
    made: Checker = writer.names["check"]
    return made


@lru_cache(maxsize=64)
def hints_of(kind: type[msgspec.Struct]) -> Mapping[str, Any]:
    """Return the types of a struct's fields, by name."""
    return get_type_hints(kind)


def is_struct(hint: Any) -> bool:
    """Return whether a field holds a part of the context, not a value."""
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct) and hint is not EntityUid


def _default(kind: type[msgspec.Struct], attr: str, wanted: RecordType) -> msgspec.Struct | None:
    """Return what a part is when nobody states it, if it fits the schema."""
    defaults = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
    found = defaults.get(attr)
    if not isinstance(found, msgspec.Struct):
        return None
    stated = {name: value for name, value in msgspec.structs.asdict(found).items() if value is not None}
    try:
        types.taken(stated, wanted)
    except InvalidRequestError:
        return None
    return found


class _UnusualError(Exception):
    """The schema asks for something our contexts never have."""


class _Writer:
    """Writes the source, naming every object it needs."""

    def __init__(self, slow: Reader) -> None:
        self.names: dict[str, Any] = {
            "slow": slow, "uid": EntityUid, "datetime": datetime, "moment": moment,
            "taken": types.taken, "v4": IPv4Interface, "v6": IPv6Interface, "network": network,
            "none": frozenset(), "nothing": set_of(()),
        }  # fmt: skip

    def struct(
        self, name: str, kind: type[msgspec.Struct], wanted: RecordType, reads: frozenset[str] | None
    ) -> Iterator[str]:
        """Yield lines that check the struct `name` and turn what is read of it into the record `r_name`."""
        hints = hints_of(kind)
        if any(field.required and attr not in hints for attr, field in wanted.fields.items()):
            raise _UnusualError
        yield f"if type({name}) is not {self._named(kind)}: return slow(c)"
        kept, checks, later = [], [], []
        for attr, hint in hints.items():
            value, field = f"{name}_{attr}", wanted.fields.get(attr)
            read = reads is None or attr in reads
            yield f"{value} = {name}.{attr}"
            if field is None:
                checks.append(f"{value} is None")
            elif is_struct(hint):
                yield from self._nested(value, hint, field, None if read else frozenset())
                kept += [f"{attr!r}: r_{value}"] if read else []
            elif field.required:
                checks.append(self._check(value, field))
                kept += [f"{attr!r}: {self._form(value, field)}"] if read else []
            else:
                form = f"r_{name}[{attr!r}] = {self._form(value, field)}" if read else "pass"
                later += [
                    f"if {value} is not None:",
                    f"    if not ({self._check(value, field)}): return slow(c)",
                ]
                later.append(f"    {form}")
        if checks:
            yield f"if not ({' and '.join(checks)}): return slow(c)"
        yield f"r_{name} = {{{', '.join(kept)}}}"
        yield from later

    def checks(self, name: str, kind: type[msgspec.Struct], wanted: RecordType) -> Iterator[str]:
        """Yield lines that return False unless the struct `name` is as the schema wants it."""
        hints = hints_of(kind)
        if any(field.required and attr not in hints for attr, field in wanted.fields.items()):
            raise _UnusualError
        yield f"if type({name}) is not {self._named(kind)}: return False"
        flat: list[str] = []
        for attr, hint in hints.items():
            value, field = f"{name}_{attr}", wanted.fields.get(attr)
            yield f"{value} = {name}.{attr}"
            if field is None:
                flat.append(f"{value} is None")
            elif is_struct(hint):
                if not isinstance(field.type, RecordType):
                    raise _UnusualError
                # Parts nobody stated are the one default object, which is checked here instead.
                default = _default(kind, attr, field.type)
                yield "if True:" if default is None else f"if {value} is not {self._named(default)}:"
                yield from (f"    {line}" for line in self.checks(value, hint, field.type))
            else:
                check = self._check(value, field)
                flat.append(check if field.required else f"({value} is None or {check})")
        yield f"if not ({' and '.join(flat)}): return False"

    def _nested(
        self, value: str, hint: type[msgspec.Struct], field: Field, reads: frozenset[str] | None
    ) -> Iterator[str]:
        if not isinstance(field.type, RecordType):
            raise _UnusualError
        yield from self.struct(value, hint, field.type, reads)

    def _named(self, thing: Any) -> str:
        name = f"n{len(self.names)}"
        self.names[name] = thing
        return name

    def _check(self, value: str, field: Field) -> str:  # noqa: PLR0911 -- one return per kind of type
        match field.type:
            case types.Primitive(name) if field.type == BOOL:
                return f"({value} is True or {value} is False)"
            case types.Primitive(name) if field.type == LONG:
                inside = f"0 <= {value} <= {_USUAL_LONG} or {LONG_MIN} <= {value} <= {LONG_MAX}"
                return f"type({value}) is int and ({inside})"
            case types.Primitive(name) if field.type == STRING:
                return f"type({value}) is str and {value}.isascii()"
            case types.Primitive(name) if field.type == DATETIME:
                return f"type({value}) is datetime"
            case EntityType(name, names):
                known = "" if names is None else f" and {value}.id in {self._named(names)}"
                return f"type({value}) is uid and {value}.type == {name!r} and {value}.id.isascii(){known}"
            case types.Primitive(name) if field.type == NETWORK:
                return f"(type({value}) is v4 or type({value}) is v6)"
            case SetType():
                return f"({value} is none or {value} == none or {self._taken(value, field)} is not None)"
        return f"{self._taken(value, field)} is not None"

    def _taken(self, value: str, field: Field) -> str:
        return f"taken({value}, {self._named(field.type)}, 'context')"

    def _form(self, value: str, field: Field) -> str:
        if field.type in (BOOL, LONG, STRING) or isinstance(field.type, EntityType):
            return value
        if field.type == DATETIME:
            return f"moment({value})"
        if field.type == NETWORK:
            return f"network({value})"
        taken = self._taken(value, field)
        return f"(nothing if {value} == none else {taken})" if isinstance(field.type, SetType) else taken
