"""How columns hold single values, and what SQL may say of them: names, texts, numbers, flags, moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import (
    CHAR,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Enum,
    Integer,
    String,
    Text,
    Uuid,
    and_,
    case,
    cast,
    collate,
    false,
    func,
    not_,
    or_,
    true,
    type_coerce,
)
from sqlalchemy.sql.elements import False_

from doorward.core.errors import InvalidConfigError
from doorward.core.model import EntityUid, Value
from doorward.core.shapes import Form, Shape

Clause = ColumnElement[bool]
SQLITE, POSTGRESQL = "sqlite", "postgresql"
_LONG = 2**63
_MOST_PATTERN = 1000


class MisfitError(Exception):
    """A row holds what the schema does not let a resource have: it is denied."""


class Values(Protocol):
    """How a column's values are compared and read."""

    def misfit(self, column: ColumnElement[Any]) -> Clause:
        """Return where a value that is not null does not fit."""

    def same(self, column: ColumnElement[Any], value: Value) -> Clause | None:
        """Return where the column is this value."""

    def among(self, column: ColumnElement[Any], values: frozenset[Value]) -> Clause | None:
        """Return where the column is one of these."""

    def before(self, column: ColumnElement[Any], moment: datetime) -> Clause | None:
        """Return where the column lies before a moment."""

    def read(self, value: Any) -> Value:
        """Return a value that is not null; raise MisfitError."""


class _Plain:
    """Values compared by equality: booleans, whole numbers, texts, names."""

    def __init__(self, column: Column[Any], shape: Shape, dialect: str) -> None:
        self._shape, self._dialect, self._key = shape, dialect, Key(column, dialect)

    def misfit(self, column: ColumnElement[Any]) -> Clause:
        shape = self._shape
        strange = (
            self._key.strange(column) if shape.form is not Form.BOOL else _no_flag(column, self._dialect)
        )
        if shape.names is None:
            return strange
        return or_(strange, not_(self._key.among(column, sorted(shape.names))))

    def same(self, column: ColumnElement[Any], value: Value) -> Clause | None:
        return self.among(column, frozenset({value}))

    def among(self, column: ColumnElement[Any], values: frozenset[Value]) -> Clause | None:
        shape = self._shape
        if shape.form is Form.BOOL:
            flags = [value for value in values if isinstance(value, bool)]
            return or_(false(), *(column.is_(true() if flag else false()) for flag in flags))
        if shape.form is Form.LONG:
            return column.in_([value for value in values if type(value) is int])
        names = [named(value, shape) for value in values]
        return self._key.among(column, [name for name in names if name is not None])

    def before(self, column: ColumnElement[Any], moment: datetime) -> Clause | None:
        del column, moment
        return None

    def read(self, value: Any) -> Value:
        if self._shape.form in {Form.BOOL, Form.LONG}:
            return member(value, self._shape)
        return member(self._key.name(value), self._shape)


class _Moments:
    """Moments; what has no time zone is UTC."""

    def __init__(self, column: Column[Any], dialect: str) -> None:
        self._zoned = dialect == POSTGRESQL and bool(getattr(column.type, "timezone", False))
        self._dialect = dialect

    def misfit(self, column: ColumnElement[Any]) -> Clause:
        if self._dialect == POSTGRESQL:
            return not_(func.isfinite(column))
        day, time = "[0-9]" * 4 + "-[0-1][0-9]-[0-3][0-9]", "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]"
        stored = type_coerce(column, Text)
        whole = stored.op("GLOB", return_type=Boolean())(f"{day} {time}.{'[0-9]' * 6}")
        return not_(or_(whole, stored.op("GLOB", return_type=Boolean())(f"{day} {time}")))

    def same(self, column: ColumnElement[Any], value: Value) -> Clause | None:
        del column, value
        return None

    def among(self, column: ColumnElement[Any], values: frozenset[Value]) -> Clause | None:
        del column, values
        return None

    def before(self, column: ColumnElement[Any], moment: datetime) -> Clause | None:
        utc = moment.astimezone(UTC)
        if self._dialect == POSTGRESQL:
            return column < (utc if self._zoned else utc.replace(tzinfo=None))
        # SQLite keeps text: a moment without a fraction sorts before the same one with `.000000`.
        stored = type_coerce(column, Text)
        whole = case(
            (func.length(stored) == len("2026-01-01 00:00:00"), stored.concat(".000000")), else_=stored
        )
        return whole < f"{utc:%Y-%m-%d %H:%M:%S.%f}".rjust(26, "0")

    def read(self, value: Any) -> Value:
        if not isinstance(value, datetime):
            raise MisfitError
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value


class Key:
    """Names in a column: as text, as whole numbers, or as UUIDs."""

    def __init__(self, column: Column[Any], dialect: str) -> None:
        """Take a column; raise InvalidConfigError for one whose values are not what they are compared as."""
        kind = column.type
        self._dialect = dialect
        self._numbers, self._uuids = isinstance(kind, Integer), isinstance(kind, Uuid)
        texts = isinstance(kind, String) and not isinstance(kind, (Enum, CHAR))
        if not (self._numbers or self._uuids or texts or isinstance(kind, Boolean)):
            raise unfit(column, "a column of the type Text, String, Integer, Uuid or Boolean")
        self._collated = texts and (bool(getattr(kind, "collation", None)) or "CITEXT" in type(kind).__name__)
        self._texts = texts

    def exact(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return the column compared byte by byte."""
        if not self._texts:
            return column
        if self._dialect == SQLITE:
            return collate(column, "BINARY")
        return collate(cast(column, Text), "C") if self._collated else column

    def among(self, column: ColumnElement[Any], names: Sequence[str]) -> Clause:
        """Return where the column is one of these names."""
        return self.exact(column).in_([v for v in map(self._stored, sorted(names)) if v is not None])

    def begins(self, column: ColumnElement[Any], prefix: str) -> Clause | None:
        """Return where the name begins with a prefix that ends in `/`; None where names are no text."""
        if not self._texts:
            return None
        text = self.exact(column) if self._dialect == SQLITE else collate(cast(column, Text), "C")
        return and_(text >= prefix, text < prefix[:-1] + chr(ord(prefix[-1]) + 1))

    def strange(self, column: ColumnElement[Any]) -> Clause:
        """Return where SQLite holds another type than the column declares; PostgreSQL never does."""
        if self._dialect == POSTGRESQL:
            return false()
        if self._uuids:
            return not_(cast(column, Text).op("GLOB", return_type=Boolean())("[0-9a-f]" * 32))
        if self._numbers:
            return func.typeof(column) != "integer"
        # GLOB reads text to its first NUL only: text with one fits nothing.
        return or_(func.typeof(column) != "text", func.instr(column, func.char(0)) > 0)

    def name(self, value: Any) -> str:
        """Return the name a value stands for; raise MisfitError."""
        good = type(value) is int if self._numbers else isinstance(value, UUID if self._uuids else str)
        if not good or (self._texts and "\0" in value):
            raise MisfitError
        return str(value)

    def _stored(self, name: str) -> int | str | UUID | None:
        if self._numbers:
            plain = name.removeprefix("-").isdecimal() and name.isascii()
            number = int(name) if plain and len(name) <= len(str(_LONG)) + 1 else _LONG
            return number if str(number) == name and -_LONG <= number < _LONG else None
        if self._uuids:
            try:
                found = UUID(name)
            except ValueError:
                return None
            return found if str(found) == name else None
        return None if self._dialect == POSTGRESQL and "\0" in name else name


def values_of(column: Column[Any], shape: Shape, dialect: str) -> Values:
    """Return how a column's values are compared; raise InvalidConfigError if it cannot hold them exactly."""
    wanted: Mapping[Form, type[Any]] = {Form.BOOL: Boolean, Form.LONG: Integer, Form.MOMENT: DateTime}
    kind = wanted.get(shape.form)
    if kind is not None and not isinstance(column.type, kind):
        raise unfit(column, f"a column of the type {kind.__name__}")
    if shape.form is Form.MOMENT:
        return _Moments(column, dialect)
    if shape.form is Form.TEXT and (
        not isinstance(column.type, String) or isinstance(column.type, (Enum, CHAR))
    ):
        raise unfit(column, "a column of the type Text or String")
    return _Plain(column, shape, dialect)


def is_never(clause: Clause) -> bool:
    """Return whether a clause is the constant false."""
    return isinstance(clause, False_)


def like(column: ColumnElement[Any], pieces: Sequence[str], dialect: str) -> Clause | None:
    """Return where text matches literal pieces with anything between two of them, by case and by byte."""
    if len(pieces) == 1 or sum(map(len, pieces)) > _MOST_PATTERN or any("\0" in piece for piece in pieces):
        return None
    if dialect == POSTGRESQL:
        escaped = (piece.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") for piece in pieces)
        return cast(column, Text).like("%".join(escaped), escape="\\")
    quoted = ("".join(f"[{c}]" if c in "*?[" else c for c in piece) for piece in pieces)
    return column.op("GLOB", return_type=Boolean())("*".join(quoted))


def _no_flag(column: ColumnElement[Any], dialect: str) -> Clause:
    if dialect == POSTGRESQL:
        return false()
    number = type_coerce(column, Integer)
    return or_(func.typeof(number) != "integer", number.not_in([0, 1]))


def named(value: Value, shape: Shape) -> str | None:
    """Return how a value stands in a column of names or texts, None where it never does."""
    if shape.form is Form.ENTITY:
        return value.id if isinstance(value, EntityUid) and value.type == shape.entity else None
    return value if isinstance(value, str) else None


def member(value: Any, shape: Shape) -> Value:
    """Return one value as the schema has it; raise MisfitError if it is not."""
    good: type[Any] = {Form.BOOL: bool, Form.LONG: int}.get(shape.form, str)
    if type(value) is not good or (type(value) is int and not -_LONG <= value < _LONG):
        raise MisfitError
    if shape.form is not Form.ENTITY:
        return bool(value) if good is bool else int(value) if good is int else str(value)
    if shape.names is not None and value not in shape.names:
        raise MisfitError
    return EntityUid(shape.entity, str(value))


def unfit(column: Any, wanted: str) -> InvalidConfigError:
    """Return the error of a column that cannot hold an attribute exactly."""
    return InvalidConfigError(f"`{column}` does not hold this attribute exactly", hint=f"Map {wanted}.")
