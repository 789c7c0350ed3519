"""The types of a schema, and the two roads by which a value becomes one of a type, checked on the way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any, Final, TypeAlias

import msgspec

from doorward.cedar import extensions
from doorward.cedar.data import LONG_MAX, LONG_MIN, NOTHING, Fault, inside, set_of, text_of
from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid


class Primitive(msgspec.Struct, frozen=True):
    """`Bool`, `Long`, `String` or an extension type, by Cedar's name."""

    name: str


class EntityType(msgspec.Struct, frozen=True):
    """Name entities of one type; `names` are all there are when the type is enumerated."""

    name: str
    names: frozenset[str] | None = None


class SetType(msgspec.Struct, frozen=True):
    """A set of one type."""

    element: Type


class Field(msgspec.Struct, frozen=True):
    """One attribute of a record."""

    type: Type
    required: bool


class RecordType(msgspec.Struct, frozen=True):
    """A closed record."""

    fields: dict[str, Field]

    def __hash__(self) -> int:
        """Hash the content, so that every type can stand in a set of types."""
        return hash(frozenset(self.fields.items()))


Type: TypeAlias = Primitive | EntityType | SetType | RecordType

BOOL: Final = Primitive("Bool")
LONG: Final = Primitive("Long")
STRING: Final = Primitive("String")
DATETIME: Final = Primitive("datetime")
DURATION: Final = Primitive("duration")
DECIMAL: Final = Primitive("decimal")
NETWORK: Final = Primitive("ipaddr")
PRIMITIVES: Final = {t.name: t for t in (BOOL, LONG, STRING, DATETIME, DURATION, DECIMAL, NETWORK)}
_CLASSES: dict[str, tuple[type, ...]] = {
    "String": (str,),
    "datetime": (datetime,),
    "duration": (timedelta,),
    "decimal": (Decimal,),
    "ipaddr": (IPv4Interface, IPv6Interface),
}
_READERS: dict[str, str] = {
    "ipaddr": "ip",
    "datetime": "datetime",
    "duration": "duration",
    "decimal": "decimal",
}


def _refused(value: Any, wanted: Type, where: str) -> InvalidRequestError:
    name = wanted.name if isinstance(wanted, (Primitive, EntityType)) else type(wanted).__name__
    return InvalidRequestError(f"{where or 'the value'} is {value!r:.80}, not a {name}")


def taken(value: Any, wanted: Type, where: str = "") -> Any:  # noqa: C901 -- one case per kind of type
    """Return a value of the house in the evaluator's form; raise InvalidRequestError if the type differs."""
    match wanted:
        case Primitive("Bool"):
            good = value is True or value is False
        case Primitive("Long"):
            good = isinstance(value, int) and not isinstance(value, bool)
        case Primitive(name):
            good = isinstance(value, _CLASSES[name])
        case EntityType(name, names):
            good = isinstance(value, EntityUid) and value.type == name
            good = good and (names is None or value.id in names)
            if good:
                text_of(value.id)
        case SetType(element):
            if isinstance(value, frozenset):
                return set_of([taken(item, element, where) for item in value]) if value else NOTHING
            good = False
        case RecordType(fields):
            if isinstance(value, Mapping):
                return _record(value, fields, where, taken)
            good = False
    if not good:
        raise _refused(value, wanted, where)
    return inside(value)


class Taker:
    """Do what `taken` does for one kind of record, quickly where the values are of the usual kinds."""

    __slots__ = ("_plain", "_required", "_sets", "_wanted")

    def __init__(self, wanted: RecordType) -> None:
        """Sort the fields by how they are looked over."""
        self._wanted = wanted
        self._required = frozenset(name for name, field in wanted.fields.items() if field.required)
        # Sets of texts seen before; of numbers, 1 and true would be taken for one.
        self._sets: dict[tuple[str, Any], Any] = {}
        # By name: the class of a usual value; of entities their type, and their names if enumerated.
        self._plain: dict[str, tuple[Any, str, frozenset[str] | None]] = {}
        for name, field in wanted.fields.items():
            if field.type in _USUAL:
                self._plain[name] = (_USUAL[field.type], "", None)
            elif isinstance(field.type, EntityType):
                self._plain[name] = (EntityUid, field.type.name, field.type.names)

    def __call__(self, value: Mapping[str, Any], where: object = "") -> dict[str, Any]:  # noqa: C901 -- no calls
        """Return the record, the very one that was given where nothing is to change; raise as `taken`."""
        plain, odd = self._plain, list[str]()
        item: Any
        for name, item in value.items():
            cls, kind, names = plain.get(name, _NEVER)
            if type(item) is cls:
                if cls is bool:
                    continue
                if cls is str:
                    if item.isascii():
                        continue
                elif cls is int:
                    if LONG_MIN <= item <= LONG_MAX:
                        continue
                elif item.type == kind and (item.id.isascii() if names is None else item.id in names):
                    continue
            odd.append(name)
        if type(value) is not dict or not self._required <= value.keys():
            found: dict[str, Any] = taken(value, self._wanted, str(where))
            return found
        if not odd:
            return value
        made = dict(value)
        for name in odd:
            field = self._wanted.fields.get(name)
            if field is None:
                return dict(taken(value, self._wanted, str(where)))  # which raises, and says it well
            made[name] = self._one(name, value[name], field.type, where)
        return made

    def _one(self, name: str, value: Any, wanted: Type, where: object) -> Any:
        shared = isinstance(wanted, SetType) and wanted.element == STRING and type(value) is frozenset
        if shared and (name, value) in self._sets:
            return self._sets[name, value]
        found = taken(value, wanted, f"{where}.{name}" if where else name)
        if shared:
            if len(self._sets) >= _MAX_SETS:
                self._sets.clear()
            self._sets[name, value] = found
        return found


_MAX_SETS = 4096
_USUAL: dict[Type, type] = {BOOL: bool, LONG: int, STRING: str}
_NEVER = (type(None), "", None)


def read(value: Any, wanted: Type, where: str = "") -> Any:  # noqa: PLR0911 -- one return per kind of type
    """Return Cedar JSON, explicit or as short as the type allows, in the evaluator's form; else raise."""
    match wanted:
        case Primitive("Bool") if isinstance(value, bool):
            return value
        case Primitive("Long") if isinstance(value, int) and not isinstance(value, bool):
            return inside(value)
        case Primitive("String") if isinstance(value, str):
            return text_of(value)
        case Primitive(name) if name in _READERS:
            return _extension(value, wanted, where)
        case EntityType() if isinstance(value, Mapping):
            found = value.get("__entity", value)
            return taken(EntityUid(str(found.get("type")), str(found.get("id"))), wanted, where)
        case SetType(element) if isinstance(value, list):
            return set_of([read(item, element, where) for item in value])
        case RecordType(fields) if isinstance(value, Mapping):
            return _record(value, fields, where, read)
    raise _refused(value, wanted, where)


def _extension(value: Any, wanted: Primitive, where: str) -> Any:
    call = value.get("__extn", value) if isinstance(value, Mapping) else None
    try:
        match call:
            case None:
                found = extensions.call(_READERS[wanted.name], [value])
            case {"fn": "offset", "args": [start, span]}:
                parts = [_extension(start, DATETIME, where), _extension(span, DURATION, where)]
                found = extensions.call("offset", parts)
            case {"fn": function, "arg": argument} if function == _READERS[wanted.name]:
                found = extensions.call(function, [argument])
            case _:
                raise _refused(value, wanted, where)
    except Fault as reason:
        raise InvalidRequestError(f"{where}: {reason}") from reason
    return found


def _record(value: Mapping[str, Any], fields: Mapping[str, Field], where: str, one: Any) -> dict[str, Any]:
    for name in value:
        if name not in fields:
            raise InvalidRequestError(f"{where or 'the record'} has an attribute `{name}` the schema lacks")
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = one(value[name], field.type, f"{where}.{name}" if where else name)
        elif field.required:
            raise InvalidRequestError(f"{where or 'the record'} lacks the attribute `{name}`")
    return found
