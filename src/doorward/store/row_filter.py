"""A filter as SQL: which rows of a table may be shown, as a WHERE clause and what is left for each row.

`where` encloses the answer. Where it cannot be exact, `sure` says of each row whether it is decided
already, and for the rest `resource` makes the resource of a row, to be decided one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, and_, false, not_, or_, true

from doorward.core import filters
from doorward.core.errors import InvalidConfigError
from doorward.core.filters import Leaf
from doorward.core.formula import UNDECIDED, Both, Bounds, Either, Formula, Literal, leaves
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.shapes import Form, ResourceShape, Shape
from doorward.store.row_fields import Collected, Converted, Field, Members, Opaque, Scalar, field_of
from doorward.store.row_values import POSTGRESQL, SQLITE, Clause, Key, MisfitError, is_never

__all__ = ["Columns", "Converted", "Members", "Parents", "RowFilter", "row_filter"]

# A statement with more comparisons is over what SQLite parses: every row is decided instead.
MOST_LEAVES = 400
_LONG = 2**63
_NOBODY = frozenset[EntityUid]()
Under = Callable[[EntityUid, str], frozenset[str] | None]


class Parents(msgspec.Struct, frozen=True):
    """Name where the ids of entities that a row lies in stand; `type` is their full type."""

    type: str
    source: Column[Any] | Members


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Say which column holds what. What is not named is not known of a resource.

    `prefix` stands before every id (`shop/` + column). An attribute is a column, `Members`, `Converted`,
    or a constant value that all rows share; `tags` are columns of text by the tag's name.
    """

    id: Column[Any]
    attributes: Mapping[str, Any] = msgspec.field(default_factory=dict)
    parents: tuple[Parents, ...] = ()
    tags: Mapping[str, Column[Any]] = msgspec.field(default_factory=dict)
    prefix: str = ""


class Doubts(msgspec.Struct, frozen=True):
    """Name rows a query may not speak of: by these names, and with `covers` what lies under them."""

    names: tuple[str, ...]
    covers: bool


class RowFilter:
    """One filter on one table: `where`, and what is needed to decide the rows it cannot tell of."""

    def __init__(self, mapped: _Mapped, bounds: Bounds, doubts: Doubts | None) -> None:
        """Render; `doubts` is None where nothing may be said of any row."""
        bounds = bounds if doubts is not None else UNDECIDED
        bounds = bounds.within(lambda one: mapped.holds(one.leaf) is not None)
        if leaves(bounds.sure) + leaves(bounds.possible) > MOST_LEAVES:
            bounds = UNDECIDED
        doubted = false() if doubts is None else mapped.doubted(doubts)
        fits, opaque = mapped.fits(), mapped.opaque()
        possible = and_(fits, mapped.clause(bounds.possible))
        self.exact = bounds.exact and not (doubts is None or doubts.names or opaque)
        self.where: Clause = and_(mapped.named(), or_(doubted, possible))
        self.sure: Clause = and_(
            mapped.named(),
            not_(doubted),
            fits,
            *(not_(there) for there in opaque),
            mapped.clause(bounds.sure),
        )
        self._mapped = mapped
        self.facts: tuple[ColumnElement[Any], ...] = mapped.facts

    def resource(self, values: Sequence[Any]) -> Entity | None:
        """Return the resource of a row from the values of its `facts`; None for one that fits no schema."""
        return self._mapped.resource(values)


def row_filter(  # noqa: PLR0913 -- one question, one table
    bounds: Bounds,
    *,
    shape: ResourceShape,
    columns: Columns,
    dialect: str,
    doubts: Doubts | None,
    under: Under,
) -> RowFilter:
    """Render bounds for a table; `under` lists the entities of a type that lie in another.

    Raises InvalidConfigError where columns cannot hold what the schema says, or for another database.
    """
    if dialect not in {SQLITE, POSTGRESQL}:
        raise InvalidConfigError(
            f"a filter is not written for `{dialect}`", hint="SQLite and PostgreSQL compare as Cedar does."
        )
    return RowFilter(_Mapped(shape, columns, dialect, under), bounds, doubts)


class _Mapped:
    """The resources of a table, as columns hold them."""

    def __init__(self, shape: ResourceShape, columns: Columns, dialect: str, under: Under) -> None:
        self._shape, self._columns, self._under = shape, columns, under
        self._key = Key(columns.id, dialect)
        self._constants: dict[str, Value] = {}
        self._fields: dict[str, Field] = {}
        for name, source in columns.attributes.items():
            self._add(name, source, dialect)
        missing = sorted(shape.required - columns.attributes.keys())
        if missing:
            raise InvalidConfigError(
                f"every {shape.type} has {', '.join(missing)}, and no column is named for it",
                hint="Name a column, or a constant that holds for all rows.",
            )
        if columns.tags and not shape.tags:
            raise InvalidConfigError(f"{shape.type} has no tags of text", hint="Leave `tags` out.")
        text = Shape(Form.TEXT, required=False)
        self._tags: dict[str, Field] = {
            name: Scalar(column, text, dialect) for name, column in columns.tags.items()
        }
        self._parents = [(one.type, self._parent(one, dialect)) for one in columns.parents]
        self._all: tuple[Field, ...] = (
            *self._fields.values(),
            *self._tags.values(),
            *(field for _, field in self._parents),
        )
        self.facts = (columns.id, *(fact for field in self._all for fact in field.facts))
        self._said: dict[Leaf, Clause | bool | None] = {}

    def _add(self, name: str, source: Any, dialect: str) -> None:
        shape = self._shape.attributes.get(name)
        if shape is None:
            raise InvalidConfigError(
                f"{self._shape.type} has no attribute `{name}`", hint="See schema.cedarschema."
            )
        if isinstance(source, (Column, Members, Converted)):
            self._fields[name] = field_of(source, shape, key=self._columns.id, dialect=dialect)
        elif isinstance(source, ColumnElement):
            raise InvalidConfigError(
                f"`{name}` is an expression, no column", hint="Name a column of a table."
            )
        elif fitting(source, shape):
            self._constants[name] = source
        else:
            raise InvalidConfigError(f"`{name}` cannot be {source!r}", hint=f"It is {shape.form.value}.")

    def _parent(self, one: Parents, dialect: str) -> Field:
        if one.type not in self._shape.above:
            raise InvalidConfigError(f"no {one.type} lies above a {self._shape.type}", hint="See the schema.")
        shape = Shape(Form.ENTITY, required=False, entity=one.type, names=self._shape.above[one.type])
        if isinstance(one.source, Members):
            members = Shape(Form.SET, element=shape)
            return Collected(one.source, members, key=self._columns.id, dialect=dialect)
        return Scalar(one.source, shape, dialect)

    # What SQL says

    def named(self) -> Clause:
        """Return where a row has a name."""
        return and_(self._columns.id.is_not(None), not_(self._key.strange(self._columns.id)))

    def fits(self) -> Clause:
        """Return where everything a row says fits the schema."""
        there = [f.there() for name, f in self._fields.items() if self._shape.attributes[name].required]
        return and_(true(), *there, *(not_(misfit) for f in self._all if not is_never(misfit := f.misfit())))

    def opaque(self) -> list[Clause]:
        """Return where attributes stand that only `resource` can judge."""
        return [field.there() for field in self._all if isinstance(field, Opaque)]

    def doubted(self, doubts: Doubts) -> Clause:
        """Return where a row's name is among the doubts."""
        column, found = self._columns.id, [self._key.among(self._columns.id, doubts.names)]
        if doubts.covers:
            below = (self._key.begins(column, f"{name.removesuffix('/')}/") for name in doubts.names)
            found += [clause for clause in below if clause is not None]
        return or_(false(), *found) if doubts.names else false()

    def clause(self, one: Formula) -> Clause:
        """Return a formula whose literals can all be said."""
        match one:
            case Literal(leaf, positive):
                said = self.holds(leaf)
                whole = (true() if said else false()) if isinstance(said, bool) or said is None else said
                return whole if positive else not_(whole)
            case Both(parts):
                return and_(*map(self.clause, parts))
            case Either(parts):
                return or_(*map(self.clause, parts))
        return true() if one else false()

    def holds(self, leaf: Leaf) -> Clause | bool | None:
        """Return where a leaf holds, None where SQL cannot say it."""
        if leaf not in self._said:
            self._said[leaf] = self._holds(leaf)
        return self._said[leaf]

    def _holds(self, leaf: Leaf) -> Clause | bool | None:  # noqa: PLR0911 -- one return per form
        match leaf:
            case filters.Typed(kind):
                return kind == self._shape.type
            case filters.Same(uid):
                return self._same(uid)
            case filters.Within(uid):
                return self._within(uid)
            case filters.HasTag(name):
                return self._tags[name].there() if name in self._tags else False
            case filters.TagIs(name, value):
                compared = filters.Compare(name, filters.Comparison.EQUAL, value)
                return self._tags[name].holds(compared) if name in self._tags else False
        field = self._fields.get(leaf.field)
        if field is not None:
            return field.there() if isinstance(leaf, filters.Has) else field.holds(leaf)
        alone = Entity(EntityUid(self._shape.type, ""), self._constants)
        return filters.holds(leaf, alone, _NOBODY) is True

    def _same(self, uid: EntityUid) -> Clause | bool:
        prefix = self._columns.prefix
        if uid.type != self._shape.type or not uid.id.startswith(prefix):
            return False
        return self._key.among(self._columns.id, [uid.id[len(prefix) :]])

    def _within(self, uid: EntityUid) -> Clause | bool | None:
        found = [same] if not isinstance(same := self._same(uid), bool) else []
        for kind, field in self._parents:
            names = self._under(uid, kind)
            if names is None:
                return None
            if not names:
                continue
            members = frozenset[Value](EntityUid(kind, name) for name in names)
            if isinstance(field, Scalar):
                said = field.holds(filters.OneOf("", members))
            else:
                said = _any_of(
                    field.holds(filters.Contains("", member)) for member in sorted(members, key=str)
                )
            if said is None:
                return None
            found.append(said)
        return or_(false(), *found) if found else False

    # What a row says

    def resource(self, values: Sequence[Any]) -> Entity | None:
        """Return the resource of a row, None where it does not fit."""
        name, rest = values[0], iter(values[1:])
        try:
            uid = EntityUid(self._shape.type, self._columns.prefix + self._key.name(name))
            attrs = {**self._constants, **dict(_read(self._fields, rest))}
            tags = {tag: str(value) for tag, value in _read(self._tags, rest)}
            parents = frozenset(self._lies_in(rest))
        except MisfitError:
            return None
        return Entity(uid, attrs, parents, tags)

    def _lies_in(self, rest: Iterator[Any]) -> Iterator[EntityUid]:
        for _, field in self._parents:
            value = field.read([next(rest) for _ in field.facts])
            for uid in value if isinstance(value, frozenset) else () if value is None else (value,):
                if isinstance(uid, EntityUid):
                    yield uid


def fitting(value: Any, shape: Shape) -> bool:  # noqa: PLR0911 -- one per form
    """Return whether a constant is what the schema says."""
    match shape.form:
        case Form.BOOL:
            return isinstance(value, bool)
        case Form.LONG:
            return type(value) is int and -_LONG <= value < _LONG
        case Form.TEXT:
            return isinstance(value, str)
        case Form.MOMENT:
            return isinstance(value, datetime) and value.tzinfo is not None
        case Form.ENTITY:
            named = isinstance(value, EntityUid) and value.type == shape.entity
            return named and (shape.names is None or value.id in shape.names)
        case Form.SET if isinstance(value, frozenset) and shape.element is not None:
            return all(fitting(member, shape.element) for member in value)
    return False


def _read(fields: Mapping[str, Field], rest: Iterator[Any]) -> Iterator[tuple[str, Value]]:
    for name, field in fields.items():
        value = field.read([next(rest) for _ in field.facts])
        if value is not None:
            yield name, value


def _any_of(clauses: Iterator[Clause | None]) -> Clause | None:
    found = [*clauses]
    return None if any(one is None for one in found) else or_(false(), *(c for c in found if c is not None))
