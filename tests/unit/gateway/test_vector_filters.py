"""A vector store's query lets through all that is allowed, and is the answer where it says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.core import filters
from doorward.core.filters import Comparison, Residual
from doorward.core.formula import Bounds, bounds, satisfied
from doorward.core.model import Entity, EntityUid
from doorward.core.shapes import Form, ResourceShape, Shape
from doorward.gateway.vector_filters import Metadata, VectorFilter, chroma, conditions

KIND, USER = "Shop::Note", "Doorward::User"
DANA, OMAR = EntityUid(USER, "dana"), EntityUid(USER, "omar")
SHAPE = ResourceShape(
    KIND,
    {
        "level": Shape(Form.LONG),
        "open": Shape(Form.BOOL),
        "rank": Shape(Form.LONG, required=False),
        "text": Shape(Form.TEXT, required=False),
        "owner": Shape(Form.ENTITY, required=False, entity=USER),
        "marks": Shape(Form.SET, element=Shape(Form.TEXT)),
        "more": Shape(Form.SET, required=False, element=Shape(Form.LONG)),
        "unmapped": Shape(Form.TEXT, required=False),
    },
)
MAPPED = ("level", "open", "rank", "text", "owner", "marks", "more")
METADATA = Metadata(shape=SHAPE, keys={name: f"m_{name}" for name in MAPPED}, fits=True)
ALWAYS = frozenset({"level", "open", "marks"})


def leaf_of(make: Any, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(*parts).map(lambda drawn: make(*drawn))


numbers = st.integers(-1, 3) | st.sampled_from([2**53, -(2**53) - 1, 2**53 + 1, 2**63 - 1])
leaf = st.one_of(
    leaf_of(filters.Has, st.sampled_from(list(SHAPE.attributes))),
    leaf_of(filters.Flag, st.just("open")),
    leaf_of(filters.Compare, st.sampled_from(["level", "rank"]), st.sampled_from(Comparison), numbers),
    leaf_of(
        filters.Compare,
        st.sampled_from(["text", "unmapped"]),
        st.sampled_from([Comparison.EQUAL, Comparison.UNEQUAL]),
        st.sampled_from(["a", "b"]),
    ),
    leaf_of(
        filters.Compare,
        st.just("owner"),
        st.sampled_from([Comparison.EQUAL, Comparison.UNEQUAL]),
        st.sampled_from([DANA, EntityUid("Doorward::Agent", "dana")]),
    ),
    leaf_of(filters.OneOf, st.sampled_from(["level", "rank"]), st.frozensets(numbers, max_size=3)),
    leaf_of(filters.OneOf, st.just("owner"), st.frozensets(st.sampled_from([DANA, OMAR]))),
    leaf_of(filters.Contains, st.just("marks"), st.sampled_from(["x", "y"])),
    leaf_of(filters.Contains, st.just("more"), st.integers(0, 2)),
    leaf_of(filters.Inside, st.just("marks"), st.frozensets(st.sampled_from(["x", "y"]))),
    leaf_of(filters.Inside, st.just("more"), st.frozensets(st.integers(0, 2))),
    leaf_of(filters.Like, st.just("text"), st.just(("a", ""))),
    leaf_of(filters.Same, st.just(EntityUid(KIND, "1"))),
    leaf_of(filters.Typed, st.sampled_from([KIND, "Shop::Other"])),
)
tree = st.recursive(
    leaf | st.just(filters.Unknown("?")),
    lambda inner: st.one_of(
        inner.map(filters.Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: filters.All(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: filters.AnyOf(tuple(parts))),
    ),
    max_leaves=6,
)
records = st.fixed_dictionaries(
    {
        "level": numbers,
        "open": st.booleans(),
        "marks": st.frozensets(st.sampled_from(["x", "y", "z"])),
    },
    optional={
        "rank": numbers,
        "text": st.sampled_from(["a", "b", "ab"]),
        "owner": st.sampled_from([DANA, OMAR]),
        "more": st.frozensets(st.integers(0, 3)),
    },
)


def payload_of(attrs: dict[str, Any]) -> dict[str, Any]:
    def stored(value: Any) -> Any:
        if isinstance(value, frozenset):
            return sorted(value)
        return value.id if isinstance(value, EntityUid) else value

    return {f"m_{name}": stored(value) for name, value in attrs.items()}


def found_by_chroma(where: dict[str, Any], payload: dict[str, Any], *, lenient: bool) -> bool:
    """Read a `where` as Chroma does; `lenient` versions let `$ne` and `$nin` find records without the key."""
    ((word, said),) = where.items()
    if word == "$and":
        return all(found_by_chroma(part, payload, lenient=lenient) for part in said)
    if word == "$or":
        return any(found_by_chroma(part, payload, lenient=lenient) for part in said)
    ((operator, value),) = said.items()
    assert value != []  # Chroma refuses an empty list
    if word not in payload:
        return lenient and operator in {"$ne", "$nin"}
    held = payload[word]
    members = [(type(one), one) for one in value] if isinstance(value, list) else []
    same = (type(held), held) == (type(value), value)
    match operator:
        case "$eq" | "$ne":
            return same is (operator == "$eq")
        case "$in" | "$nin":
            return ((type(held), held) in members) is (operator == "$in")
    assert type(value) is int
    return {"$lt": held < value, "$lte": held <= value, "$gt": held > value, "$gte": held >= value}[operator]


def found_by_conditions(said: dict[str, Any], payload: dict[str, Any]) -> bool:
    """Read conditions as Qdrant does: a clause is a filter of its own or one condition on a key."""
    if "is_empty" in said:
        return payload.get(said["is_empty"]["key"]) in (None, [])
    if "key" not in said:
        assert said.keys() <= {"must", "should", "must_not"}
        each = {word: [found_by_conditions(part, payload) for part in parts] for word, parts in said.items()}
        should = each.get("should", [True])
        return all(each.get("must", [])) and any(should) and not any(each.get("must_not", []))
    held = payload.get(said["key"])
    every = held if isinstance(held, list) else [] if held is None else [held]
    if "values_count" in said:
        return held is not None and len(every) > said["values_count"]["gt"]
    if "range" in said:
        ((word, bound),) = said["range"].items()
        tests = {"lt": float.__lt__, "lte": float.__le__, "gt": float.__gt__, "gte": float.__ge__}
        return any(tests[word](float(one), float(bound)) for one in every)
    ((word, wanted),) = said["match"].items()
    among = [(type(one), one) for one in (wanted if isinstance(wanted, list) else [wanted])]
    return any(((type(one), one) in among) is (word != "except") for one in every)


def check(found: VectorFilter, shown: bool, allowed: Bounds, resource: Entity) -> None:  # noqa: FBT001 -- a verdict
    possible = satisfied(allowed.possible, resource, frozenset())
    assert shown >= possible
    if found.exact:
        assert shown == satisfied(allowed.sure, resource, frozenset())


@settings(max_examples=1500, deadline=None)
@given(st.lists(tree, max_size=3), st.lists(tree, max_size=2), records)
def test_a_query_lets_through_all_that_is_allowed(permits: list[Any], forbids: list[Any], attrs: Any) -> None:
    allowed = bounds(Residual(tuple(permits), tuple(forbids)), kind=KIND, always=ALWAYS)
    resource, payload = Entity(EntityUid(KIND, "1"), attrs), payload_of(attrs)
    found = chroma(allowed, METADATA)
    for lenient in (False, True):
        shown = not found.nothing and (
            found.where is None or found_by_chroma(found.where, payload, lenient=lenient)
        )
        check(found, shown, allowed, resource)
    found = conditions(allowed, METADATA)
    shown = not found.nothing and (found.where is None or found_by_conditions(found.where, payload))
    check(found, shown, allowed, resource)


def of(*permits: Any, forbids: tuple[Any, ...] = ()) -> Bounds:
    return bounds(Residual(permits, forbids), kind=KIND, always=ALWAYS)


def test_the_common_case_is_a_short_query() -> None:
    mine = of(
        filters.All((filters.Has("owner"), filters.Compare("owner", Comparison.EQUAL, DANA))),
        filters.All((filters.Flag("open"), filters.Compare("level", Comparison.LESS, 2))),
        forbids=(filters.Contains("marks", "embargo"),),
    )
    assert conditions(mine, METADATA) == VectorFilter(
        {
            "must": [
                {
                    "should": [
                        {"key": "m_owner", "match": {"value": "dana"}},
                        {
                            "must": [
                                {"key": "m_open", "match": {"value": True}},
                                {"key": "m_level", "range": {"lt": 2}},
                            ]
                        },
                    ]
                },
                {"must_not": [{"key": "m_marks", "match": {"value": "embargo"}}]},
            ]
        },
        exact=True,
    )
    # Chroma's `where` knows no sets: the forbid is left to each record, never dropped.
    found = chroma(mine, METADATA)
    assert found.where == {
        "$or": [
            {"m_owner": {"$eq": "dana"}},
            {"$and": [{"m_open": {"$eq": True}}, {"m_level": {"$lt": 2}}]},
        ]
    }
    assert not found.exact
    assert chroma(
        of(filters.All((filters.Has("owner"), filters.OneOf("owner", frozenset({DANA}))))), METADATA
    ) == (VectorFilter({"m_owner": {"$in": ["dana"]}}, exact=True))


def test_unequal_is_said_to_chroma_only_of_what_every_record_has() -> None:
    other = of(filters.Compare("owner", Comparison.UNEQUAL, DANA))
    assert chroma(other, METADATA) == VectorFilter(None, exact=False)
    assert chroma(of(filters.Compare("level", Comparison.UNEQUAL, 1)), METADATA) == VectorFilter(
        {"m_level": {"$ne": 1}}, exact=True
    )


@pytest.mark.parametrize("render", [chroma, conditions])
def test_nobody_nothing_and_everybody(render: Any) -> None:
    assert render(of(), METADATA) == VectorFilter(None, exact=True, nothing=True)
    assert render(of(filters.Typed(KIND)), METADATA) == VectorFilter(None, exact=True)
    assert render(of(filters.Unknown("?")), METADATA) == VectorFilter(None, exact=False)
    unsaid = filters.Compare("unmapped", Comparison.EQUAL, "a")
    assert render(of(unsaid), METADATA) == VectorFilter(None, exact=True, nothing=True)


@pytest.mark.parametrize("render", [chroma, conditions])
def test_metadata_nobody_vouches_for_is_never_the_answer(render: Any) -> None:
    foreign = Metadata(shape=SHAPE, keys=METADATA.keys)
    found = render(of(filters.Flag("open")), foreign)
    assert found.where is not None
    assert not found.exact
