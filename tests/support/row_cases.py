"""Random policies over random rows of one table, for tests that compare SQL with deciding each row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

import cedarpy
import msgspec
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    ForeignKey,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
)

from doorward.cedar.admission import bundle_of
from doorward.core.context import Context
from doorward.core.decision import AccessRequest
from doorward.core.feed import PolicyText
from doorward.core.model import Entity, EntityUid, Value
from doorward.decisions.listing import Listing
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.schema_attributes import vocabulary_of
from doorward.policies.workspace import packaged_schema
from doorward.store.row_fields import Converted, Members
from doorward.store.row_filter import Columns, Doubts, Parents, row_filter
from doorward.store.row_selection import Selection

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORDER = "Shop::Order"
SCHEMA = (
    packaged_schema()
    + """
namespace Shop {
  entity Region; entity Shelf in [Region];
  entity Order in [Shelf, Region, Doorward::Environment] {
    owner?: Doorward::User, level: Long, open: Bool, note?: String, state: String, due?: datetime,
    marks: Set<String>, sizes?: Set<Long>, people?: Set<Doorward::User>, place: Doorward::Environment,
    amount?: decimal, made: Long,
  } tags String;
  action see appliesTo { principal: [Doorward::User], resource: [Order], context: Doorward::Context };
}
"""
)
ORG = """
users:
  dana: { groups: [risk] }
  omar: {}
  gone: { active: false }
entities:
  Shop::Region::"eu": {}
  Shop::Region::"us": {}
  Shop::Shelf::"s1": { parents: [Shop::Region::"eu"] }
  Shop::Shelf::"s2": {}
  Shop::Order::"3":
    { parents: [Shop::Region::"us"], level: 1, open: true, state: done, marks: [a], place: testing, made: 7 }
"""
# Attributes that may be missing stand unguarded too: policies that strict validation would refuse.
ATOMS = (
    "resource.level < 2", "3 > resource.level", "resource.level == 1", "resource.level != 0",
    "[0, 2].contains(resource.level)", "resource.level >= 9223372036854775807", "resource.open",
    "resource.open == false", 'resource.state == "Done"', 'resource.state like "d*"',
    r'resource.state like "*\**"', 'resource.state like "*[d_%]*e"', 'resource.state like "*"',
    'resource.state like "done"', '["done", "DONE"].contains(resource.state)', "resource has note",
    'resource.note == "a"', 'resource.note != "a"', 'resource.note like "*\\\\*"',
    'resource.note like "é*"', "resource has owner && resource.owner == principal",
    "resource.owner == principal", '[principal, Doorward::User::"omar"].contains(resource.owner)',
    'resource.due < datetime("2026-06-01T12:00:00Z")', 'resource.due <= datetime("2026-06-01T12:00:00Z")',
    "resource.due == context.now", "context.now <= resource.due", "resource.due > context.now",
    'resource.marks.contains("a")', 'resource.marks.containsAll(["a", "b"])',
    'resource.marks.containsAny(["b", "c"])', '["a", "b"].containsAll(resource.marks)',
    "resource.marks.isEmpty()", "resource.sizes.contains(1)", "[1, 2].containsAll(resource.sizes)",
    "resource.people.contains(principal)", 'resource in Shop::Region::"eu"', 'resource in Shop::Shelf::"s1"',
    'resource in [Shop::Region::"us", Shop::Shelf::"s2"]', 'resource is Shop::Order in Shop::Region::"us"',
    'resource in Doorward::Group::"risk"', 'resource == Shop::Order::"3"', 'resource == Shop::Order::"4"',
    'Shop::Order::"5" has note', 'resource.place == Doorward::Environment::"testing"',
    'resource.place != Doorward::Environment::"testing"', 'resource.hasTag("t")',
    'resource.getTag("t") == "x"', 'resource.getTag("none") == "x"',
    'resource.amount.lessThan(decimal("1.5"))', "resource.level + 1 > 2", "resource.made == 7",
    "context.risk < 50", 'principal in Doorward::Group::"risk"', "9223372036854775807 + context.risk > 0",
    'context.network.ip.isInRange(ip("10.0.0.0/8"))', 'context.purpose == "x"',
)  # fmt: skip

metadata = MetaData()
orders = Table(
    "orders",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner_id", Text),
    Column("level", BigInteger),
    Column("open", Boolean(create_constraint=False)),
    Column("note", Text),
    Column("state", String),
    Column("due", DateTime(timezone=True)),
    Column("marks", JSON),
    Column("sizes", JSON),
    Column("place", Text),
    Column("amount", Text),
    Column("shelf", Text),
    Column("tag", Text),
)
people = Table(
    "people",
    metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("person", Text, primary_key=True),
)
regions = Table(
    "regions",
    metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("region", Text, primary_key=True),
)
COLUMNS = Columns(
    id=orders.c.id,
    attributes={
        "owner": orders.c.owner_id,
        "level": orders.c.level,
        "open": orders.c.open,
        "note": orders.c.note,
        "state": orders.c.state,
        "due": orders.c.due,
        "marks": orders.c.marks,
        "sizes": orders.c.sizes,
        "people": Members(people.c.order_id, people.c.person),
        "place": orders.c.place,
        "made": 7,
    },
    parents=(
        Parents("Shop::Shelf", orders.c.shelf),
        Parents("Shop::Region", Members(regions.c.order_id, regions.c.region)),
    ),
    tags={"t": orders.c.tag},
)

text = st.sampled_from(
    ["a", "A", "a ", "", "done", "Done", "DONE", "d*e", "d[e", "d_e", "d%e", "\\", "é", "\U0001d521"]
)
moment = st.sampled_from([-1_000_000, -1, 0, 1, 999, 1000, 1_000_000]).map(
    lambda micros: NOW + timedelta(microseconds=micros)
)


def mostly(usual: st.SearchStrategy[Any], *seldom: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 15).flatmap(lambda dice: st.sampled_from(seldom) if dice == 7 else usual)


row = st.fixed_dictionaries(
    {
        "owner_id": st.sampled_from([None, "dana", "omar", "Dana"]),
        "level": mostly(st.integers(0, 3), 2**63 - 1, -(2**63), None),
        "open": mostly(st.booleans(), None),
        "note": st.none() | text,
        "state": text,
        "due": st.none() | moment,
        "marks": mostly(st.lists(st.sampled_from("abc"), max_size=3), None, {}, [1], "a", [None]),
        "sizes": mostly(
            st.none() | st.lists(st.integers(0, 3), max_size=3),
            *([True], [1.5], [2**70], [2**63 - 1], ["1"]),
        ),
        "place": mostly(st.sampled_from(["testing", "production"]), "nowhere"),
        "amount": mostly(st.sampled_from([None, "1.2", "2.0"]), "no"),
        "shelf": st.sampled_from([None, "s1", "s2", "s9"]),
        "tag": st.sampled_from([None, "x", "X"]),
        "people": st.sets(st.sampled_from(["dana", "omar"])),
        "regions": st.sets(st.sampled_from(["eu", "us", "nowhere"])),
    }
)
rows = st.lists(row, min_size=1, max_size=8)


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    two = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda arg: {"!": {"arg": arg}}),
        two.map(lambda pair: {"&&": {"left": pair[0], "right": pair[1]}}),
        two.map(lambda pair: {"||": {"left": pair[0], "right": pair[1]}}),
        st.tuples(inner, inner, inner).map(
            lambda parts: {"if-then-else": {"if": parts[0], "then": parts[1], "else": parts[2]}}
        ),
    )


@lru_cache(maxsize=4096)
def tree_of(text: str) -> Any:
    """Parse one expression."""
    return tree_of_policy(f"permit(principal, action, resource) when {{ {text} }};")["conditions"][0]["body"]


@lru_cache(maxsize=4096)
def tree_of_policy(text: str) -> Any:
    (tree,) = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
    return tree


condition = st.recursive(st.sampled_from(ATOMS).map(tree_of), combined, max_leaves=5)
policy = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(["", " is Shop::Order", ' in Shop::Region::"eu"', ' == Shop::Order::"3"']),
    st.sampled_from(["when", "when", "unless"]),
    condition,
    st.booleans(),
)
policies = st.lists(policy, min_size=1, max_size=4)


def texts(drawn: list[Any]) -> Iterator[PolicyText]:
    """Return policies as a bundle holds them, without validation; the marked ones have an obligation."""
    for number, (effect, side, kind, body, marked) in enumerate(drawn):
        scope = tree_of_policy(f"{effect}(principal, action, resource{side});")
        tree = {**scope, "conditions": [{"kind": kind, "body": body}]}
        notes = {"mask": "email"} if marked and effect == "permit" and number % 2 else {}
        yield PolicyText(f"p{number}", "", annotations=notes, effect=effect, tree=tree)


@lru_cache(maxsize=1)
def snapshot() -> Any:
    return offline_snapshot(parse(ORG, "org.yaml", vocabulary=vocabulary_of(SCHEMA)))


def standing(found: list[PolicyText]) -> Standpoint:
    point = DecisionPoint()
    point.publish(bundle_of(SCHEMA, policies=found))
    point.advance(snapshot())
    return point.pin()


def listing_of(standpoint: Standpoint, *, risk: int = 0, who: str = "dana", keeps: Any = ()) -> Listing:
    request = AccessRequest(
        EntityUid.of("User", who),
        EntityUid("Shop::Action", "see"),
        EntityUid(ORDER, ""),
        Context(now=NOW, risk=risk),
    )
    return Listing(request, standpoint, keeps=keeps)


def decimal_of(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as reason:
        raise ValueError(text) from reason


def selected(listing: Listing, *, dialect: str, columns: Columns = COLUMNS) -> Selection:
    names = listing.doubted(prefix=columns.prefix)
    found = row_filter(
        listing.bounds,
        shape=listing.shape,
        columns=columns,
        dialect=dialect,
        doubts=None if names is None else Doubts(names, listing.covers),
        under=listing.under,
    )
    return Selection(found, listing.allows, table=columns.id.table, dialect=dialect)


def with_amount(columns: Columns = COLUMNS) -> Columns:
    """Map the one attribute that SQL does not compare, too."""
    more = {**columns.attributes, "amount": Converted(orders.c.amount, decimal_of)}
    return msgspec.structs.replace(columns, attributes=more)


def fill(connection: Connection, drawn: list[Mapping[str, Any]]) -> None:
    for table in (regions, people, orders):
        connection.execute(table.delete())
    for number, one in enumerate(drawn):
        plain = {name: value for name, value in one.items() if name not in {"people", "regions"}}
        connection.execute(insert(orders).values(id=str(number), **plain))
        for person in one["people"]:
            connection.execute(insert(people).values(order_id=str(number), person=person))
        for region in one["regions"]:
            connection.execute(insert(regions).values(order_id=str(number), region=region))


def entity_of(name: str, one: Mapping[str, Any], *, amount: bool) -> Entity | None:
    """Return what a row means, read from what was drawn; None for one that no schema lets be."""
    for field in ("marks", "sizes"):
        if one[field] is not None and not isinstance(one[field], list):
            return None
    attrs: dict[str, Value | None] = {key: one[key] for key in ("level", "open", "note", "state", "due")}
    attrs["made"] = 7
    attrs["place"] = EntityUid.of("Environment", one["place"])
    attrs["owner"] = None if one["owner_id"] is None else EntityUid.of("User", one["owner_id"])
    attrs["people"] = frozenset(EntityUid.of("User", person) for person in one["people"])
    for field in ("marks", "sizes"):
        # A list, not a set yet: true and 1 must both be seen.
        if one[field] is not None and any(type(item) not in (str, int) for item in one[field]):
            return None
        attrs[field] = None if one[field] is None else frozenset(one[field])
    if amount and one["amount"] is not None:
        if one["amount"] == "no":
            return None
        attrs["amount"] = Decimal(one["amount"])
    parents = {EntityUid("Shop::Region", region) for region in one["regions"]}
    parents |= set() if one["shelf"] is None else {EntityUid("Shop::Shelf", one["shelf"])}
    return Entity(
        EntityUid(ORDER, name),
        {key: value for key, value in attrs.items() if value is not None},
        frozenset(parents),
        {} if one["tag"] is None else {"t": one["tag"]},
    )


class Case(NamedTuple):
    """What one example draws; with a prefix the directory knows none of the rows."""

    policies: list[Any]
    rows: list[Any]
    risk: int
    amount: bool
    prefix: str


cases = st.builds(
    Case, policies, rows, st.sampled_from([0, 1, 80]), st.booleans(), st.sampled_from(["", "o/", "o/"])
)


def check(connection: Connection, case: Case) -> Counter[str]:
    """Compare the table with deciding each row; return what kind of case it was."""
    _, drawn, risk, amount, prefix = case
    listing = listing_of(
        standing(list(texts(case.policies))), risk=risk, keeps=("mask",) if risk == 1 else ()
    )
    fill(connection, drawn)
    columns = msgspec.structs.replace(with_amount() if amount else COLUMNS, prefix=prefix)
    selection = selected(listing, dialect=connection.dialect.name, columns=columns)
    expected = [
        str(number)
        for number, one in enumerate(drawn)
        if (entity := entity_of(f"{prefix}{number}", one, amount=amount)) is not None
        and listing.allows(entity)
    ]
    got = [name for (name,) in selection.rows(connection, orders.c.id, order_by=[orders.c.id])]
    assert got == expected
    wide = set(connection.scalars(select(orders.c.id).where(selection.where)))
    sure = set(connection.scalars(select(orders.c.id).where(selection.sure)))
    assert sure <= set(expected) <= wide
    if selection.exact:
        assert wide == set(expected)
    return Counter(
        {
            "exact": selection.exact,
            "some": bool(got),
            "part": 0 < len(got) < len(drawn),
            "wide": wide > set(got),
        }
    )
