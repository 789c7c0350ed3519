"""One attribute of a resource as columns hold it: what SQL can say of it, and its value in a row.

INVARIANT: what SQL says is true exactly where Cedar says so of the value that `read` returns. So a value
that SQL compares otherwise (another collation, another type than declared) is `misfit`, and `read`
raises for it: the row is denied by both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Numeric,
    Text,
    Uuid,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB, array

from doorward.core import filters
from doorward.core.filters import Comparison, Leaf
from doorward.core.model import Value
from doorward.core.shapes import Form, Shape
from doorward.store.row_values import (
    POSTGRESQL,
    SQLITE,
    Clause,
    MisfitError,
    is_never,
    like,
    member,
    named,
    unfit,
    values_of,
)

_LONG = 2**63


class Members(msgspec.Struct, frozen=True):
    """Name a table with one row for each member of a set, or for each parent.

    `key` refers to the resource (to `on`, by default the column of its id), `member` is the member.
    """

    key: Column[Any]
    member: Column[Any]
    on: Column[Any] | None = None


class Converted(msgspec.Struct, frozen=True):
    """Name a column whose values `convert` makes into Cedar's: SQL does not compare them.

    `convert` raises ValueError for what is none; the row is then denied.
    """

    column: Column[Any]
    convert: Callable[[Any], Value]


class Field(Protocol):
    """What a query can say of one attribute."""

    @property
    def facts(self) -> Sequence[ColumnElement[Any]]:
        """Return the columns that `read` needs."""

    def there(self) -> Clause:
        """Return where the attribute is known."""

    def misfit(self) -> Clause:
        """Return where what stands there does not fit the schema."""

    def holds(self, leaf: Leaf) -> Clause | None:
        """Return where a leaf of a filter holds, None when SQL cannot say it exactly."""

    def read(self, values: Sequence[Any]) -> Value | None:
        """Return the value of the facts of a row, None where there is none; raise MisfitError."""


class Scalar:
    """An attribute in one column: a boolean, a whole number, text, a moment, or the id of an entity."""

    def __init__(self, column: Column[Any], shape: Shape, dialect: str) -> None:
        """Take a column; raise InvalidConfigError if its type does not hold such values exactly."""
        self._column, self._shape, self._dialect = column, shape, dialect
        self.facts = (column,)
        self._values = values_of(column, shape, dialect)

    def there(self) -> Clause:
        """Return where the column is not null."""
        return self._column.is_not(None)

    def misfit(self) -> Clause:
        """Return where a value is of another type or outside a closed set."""
        return and_(self._column.is_not(None), self._values.misfit(self._column))

    def holds(self, leaf: Leaf) -> Clause | None:
        """Compare the column."""
        said = self._said(leaf)
        return said if said is None or self._shape.required else and_(self._column.is_not(None), said)

    def _said(self, leaf: Leaf) -> Clause | None:  # noqa: PLR0911 -- one per form
        values = self._values
        match leaf:
            case filters.Flag() if self._shape.form is Form.BOOL:
                return self._column.is_(true())
            case filters.Compare(_, Comparison.EQUAL, value):
                return values.same(self._column, value)
            case filters.Compare(_, Comparison.UNEQUAL, value):
                same = values.same(self._column, value)
                return None if same is None else not_(same)
            case filters.Compare(_, comparison, value):
                return self._ordered(comparison, value)
            case filters.OneOf(_, members):
                return values.among(self._column, members)
            case filters.Like(_, pieces) if self._shape.form is Form.TEXT:
                return like(self._column, pieces, self._dialect)
        return None

    def _ordered(self, comparison: Comparison, value: Value) -> Clause | None:
        column = self._column
        if self._shape.form is Form.MOMENT and isinstance(value, datetime):
            return self._values.before(column, value) if comparison is Comparison.LESS else None
        if self._shape.form is not Form.LONG or type(value) is not int:
            return None
        match comparison:
            case Comparison.LESS:
                return column < value
            case Comparison.AT_MOST:
                return column <= value
            case Comparison.MORE:
                return column > value
        return column >= value

    def read(self, values: Sequence[Any]) -> Value | None:
        """Return the column's value."""
        (value,) = values
        return None if value is None else self._values.read(value)


class Json:
    """A set attribute in one JSON column: an array."""

    def __init__(self, column: Column[Any], shape: Shape, dialect: str) -> None:
        """Take a column of the type JSON or JSONB."""
        if not isinstance(column.type, JSON) or shape.element is None:
            raise unfit(column, "a JSON column, or Members(key, member)")
        self._column, self._required, self._dialect = column, shape.required, dialect
        self.facts = (column,)
        # An array's members have no collation or width: text is text, a number is a number.
        self._element = shape.element
        self._document = cast(column, JSONB) if dialect == POSTGRESQL else type_coerce(column, Text)

    def there(self) -> Clause:
        """Return where there is an array; JSON's own null is nothing."""
        return and_(self._column.is_not(None), self._kind() == "array")

    def misfit(self) -> Clause:
        """Return where there is something else than an array of the right members."""
        other = self._kind().not_in(["array", "null"])
        return and_(
            self._column.is_not(None), or_(other, self._some(lambda *member: not_(self._fits(*member))))
        )

    def holds(self, leaf: Leaf) -> Clause | None:
        """Look into the array."""
        match leaf:
            case filters.Contains(_, value):
                return self._some(lambda text, *_: self._equals(text, [value]))
            case filters.Inside(_, values):
                other = self._some(lambda text, *_: not_(self._equals(text, values)))
                return and_(self.there(), not_(other))
        return None

    def read(self, values: Sequence[Any]) -> Value | None:
        """Return the array as a set."""
        (value,) = values
        if value is None:
            return None
        if not isinstance(value, list):
            raise MisfitError
        return frozenset(member(item, self._element) for item in value)

    def _kind(self) -> ColumnElement[str]:
        if self._dialect == POSTGRESQL:
            return func.jsonb_typeof(self._document)
        # What is no JSON at all has no type; asking for it would be an error.
        return case((func.json_valid(self._document), func.json_type(self._document)), else_="none")

    def _some(self, test: Callable[..., Clause]) -> Clause:
        """Return where some member passes `test(text or number, its JSON type)`."""
        if self._dialect == POSTGRESQL:
            document = case((self._kind() == "array", self._document), else_=cast(literal("[]"), JSONB))
            members = func.jsonb_array_elements(document).table_valued("value").render_derived()
            value = type_coerce(members.c.value, JSONB)
            inner = test(_unquoted(value), func.jsonb_typeof(value))
        else:
            document = case((self._kind() == "array", self._document), else_="[]")
            members = func.json_each(document).table_valued("value", "type")
            inner = test(members.c.value, members.c.type)
        return exists(select(literal(1)).select_from(members).where(inner))

    def _fits(self, value: ColumnElement[Any], kind: ColumnElement[str]) -> Clause:
        shape = self._element
        if shape.form is Form.LONG:
            if self._dialect == SQLITE:
                return and_(kind == "integer", func.typeof(value) == "integer")
            whole = value.regexp_match("^-?(0|[1-9][0-9]{0,18})$")
            ranged = cast(value, Numeric).between(-_LONG, _LONG - 1)
            return and_(kind == "number", case((whole, ranged), else_=false()))
        text = kind == ("string" if self._dialect == POSTGRESQL else "text")
        return text if shape.names is None else and_(text, value.in_(sorted(shape.names)))

    def _equals(self, value: ColumnElement[Any], wanted: Sequence[Value] | frozenset[Value]) -> Clause:
        return value.in_(_wanted(wanted, self._element, as_text=self._dialect == POSTGRESQL))


class Collected:
    """A set attribute in a table of its own, one row a member; it is always known, if only as empty."""

    def __init__(self, members: Members, shape: Shape, *, key: Column[Any], dialect: str) -> None:
        """Take the table's columns; raise InvalidConfigError if they do not hold such members exactly."""
        if shape.element is None or isinstance(members.member.type, Uuid):
            raise unfit(members.member, "a set attribute to members that are texts or numbers")
        self._members, self._element, self._dialect = members, shape.element, dialect
        self._on = key if members.on is None else members.on
        self._values = values_of(members.member, shape.element, dialect)
        self.facts = (collected(members, self._on, dialect),)

    def there(self) -> Clause:
        """Return always."""
        return true()

    def misfit(self) -> Clause:
        """Return where a member does not fit."""
        strange = self._values.misfit(self._members.member)
        return false() if is_never(strange) else self._some(strange)

    def holds(self, leaf: Leaf) -> Clause | None:
        """Look for members."""
        column = self._members.member
        match leaf:
            case filters.Contains(_, value):
                same = self._values.same(column, value)
                return None if same is None else self._some(same)
            case filters.Inside(_, values):
                among = self._values.among(column, values)
                return None if among is None else not_(self._some(not_(among)))
        return None

    def read(self, values: Sequence[Any]) -> Value | None:
        """Return the members as a set."""
        (found,) = values
        return frozenset(self._values.read(item) for item in found or ())

    def _some(self, test: Clause) -> Clause:
        return some(self._members, self._on, test)


class Opaque:
    """An attribute of a form SQL does not compare as Cedar does: only whether it is there can be said."""

    def __init__(self, source: Converted) -> None:
        """Take a column and what makes a value of what it holds."""
        self._column, self._convert = source.column, source.convert
        self.facts = (source.column,)

    def there(self) -> Clause:
        """Return where the column is not null."""
        return self._column.is_not(None)

    def misfit(self) -> Clause:
        """Return nothing: `read` finds out."""
        return false()

    def holds(self, leaf: Leaf) -> Clause | None:
        """Say nothing."""
        del leaf
        return None

    def read(self, values: Sequence[Any]) -> Value | None:
        """Return the converted value."""
        (value,) = values
        try:
            return None if value is None else self._convert(value)
        except (ValueError, ArithmeticError) as reason:
            raise MisfitError from reason


def field_of(source: Any, shape: Shape, *, key: Column[Any], dialect: str) -> Field:
    """Return an attribute as a column or `Members` hold it; raise InvalidConfigError if they cannot."""
    if isinstance(source, Converted):
        return Opaque(source)
    if isinstance(source, Members):
        return Collected(source, shape, key=key, dialect=dialect)
    if shape.form is Form.SET:
        return Json(source, shape, dialect)
    return Scalar(source, shape, dialect)


def some(members: Members, on: Column[Any], test: Clause) -> Clause:
    """Return where some member of a resource passes a test."""
    inner = select(literal(1)).select_from(members.key.table)
    wanted = and_(members.key == on, members.member.is_not(None), test)
    return exists(inner.where(wanted).correlate(on.table))


def collected(members: Members, on: Column[Any], dialect: str) -> ColumnElement[Any]:
    """Return all members of a resource as one JSON array."""
    gather = func.json_agg if dialect == POSTGRESQL else func.json_group_array
    wanted = and_(members.key == on, members.member.is_not(None))
    query = select(gather(members.member)).select_from(members.key.table).where(wanted).correlate(on.table)
    return type_coerce(query.scalar_subquery(), JSON)


def _unquoted(value: ColumnElement[Any]) -> ColumnElement[str]:
    return value.op("#>>", return_type=Text())(array([], type_=Text()))


def _wanted(values: Sequence[Value] | frozenset[Value], shape: Shape, *, as_text: bool) -> list[Any]:
    if shape.form is Form.LONG:
        numbers = [value for value in values if type(value) is int]
        return [str(number) for number in numbers] if as_text else list(numbers)
    return [name for value in values if (name := named(value, shape)) is not None]
