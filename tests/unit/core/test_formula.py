"""Bounds enclose what a residual allows, whatever the tree and the resource."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doorward.core import filters
from doorward.core.filters import Comparison, Residual
from doorward.core.formula import Bounds, Literal, bounds, limited, opposite, satisfied
from doorward.core.model import Entity, EntityUid


def built(make: Callable[..., Any], *parts: st.SearchStrategy[Any], **named: st.SearchStrategy[Any]) -> Any:
    """Build structs without looking at their annotations, which name types of their own module."""
    return st.tuples(st.tuples(*parts), st.fixed_dictionaries(named)).map(lambda a: make(*a[0], **a[1]))


KIND = "Shop::Order"
UIDS = [EntityUid(KIND, "1"), EntityUid(KIND, "2"), EntityUid("Shop::Region", "eu")]
leaf = st.one_of(
    built(filters.Same, st.sampled_from(UIDS)),
    built(filters.Within, st.sampled_from(UIDS)),
    built(filters.Typed, st.sampled_from([KIND, "Shop::Region"])),
    built(filters.Has, st.sampled_from(["n", "text", "flag", "set"])),
    built(filters.HasTag, st.just("t")),
    built(filters.TagIs, st.just("t"), st.sampled_from(["a", "b"])),
    built(filters.Flag, st.just("flag")),
    built(filters.Like, st.just("text"), st.sampled_from([("a", ""), ("", "b"), ("a", "b"), ("a",)])),
    built(filters.Compare, st.just("n"), st.sampled_from(Comparison), st.integers(-1, 2)),
    built(filters.Contains, st.just("set"), st.sampled_from(["x", "y"])),
    built(filters.Inside, st.just("set"), st.frozensets(st.sampled_from(["x", "y"]))),
    built(filters.OneOf, st.just("n"), st.frozensets(st.integers(0, 2))),
)
tree = st.recursive(
    leaf
    | built(filters.Constant, value=st.booleans())
    | st.just(filters.Unknown("?"))
    | st.just(filters.Errs("!")),
    lambda inner: st.one_of(
        built(filters.Not, inner),
        built(filters.All, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        built(filters.AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)
resources = built(
    Entity,
    uid=st.sampled_from(UIDS[:2]),
    attrs=st.fixed_dictionaries(
        {"flag": st.booleans()},
        optional={
            "n": st.integers(-1, 2),
            "text": st.sampled_from(["", "a", "b", "ab", "aab"]),
            "set": st.frozensets(st.sampled_from(["x", "y", "z"])),
        },
    ),
    tags=st.dictionaries(st.just("t"), st.sampled_from(["a", "b"])),
)
above = st.frozensets(st.sampled_from(UIDS[1:]))


def reading(one: filters.Filter, resource: Entity, above: frozenset[EntityUid]) -> str:
    """Say true, false, error or unknown as the evaluator would: what is not there errs."""
    match one:
        case filters.Unknown():
            return "unknown"
        case filters.Errs():
            return "error"
        case filters.Not(part):
            swap = {"true": "false", "false": "true"}
            inner = reading(part, resource, above)
            return swap.get(inner, inner)
        case filters.All(parts) | filters.AnyOf(parts):
            going = "true" if isinstance(one, filters.All) else "false"
            for part in parts:
                if (said := reading(part, resource, above)) != going:
                    return said
            return going
    return {True: "true", False: "false", None: "error"}[filters.holds(one, resource, above)]


def verdict(residual: Residual, resource: Entity, above: frozenset[EntityUid]) -> bool | None:
    """Decide as the engine does: an erring forbid denies, an erring permit does not permit."""
    forbids = [reading(one, resource, above) for one in residual.forbids]
    permits = [reading(one, resource, above) for one in residual.permits]
    if "true" in forbids or "error" in forbids or not {"true", "unknown"} & {*permits}:
        return False
    return True if "true" in permits and "unknown" not in forbids else None


@settings(max_examples=400, deadline=None)
@given(st.lists(tree, max_size=3), st.lists(tree, max_size=3), resources, above)
def test_bounds_enclose_the_verdict(
    permits: list[filters.Filter],
    forbids: list[filters.Filter],
    resource: Entity,
    above: frozenset[EntityUid],
) -> None:
    residual = Residual(tuple(permits), tuple(forbids))
    said = verdict(residual, resource, above)
    for always in (frozenset[str](), frozenset({"flag"})):
        found = bounds(residual, kind=KIND, always=always)
        assert satisfied(found.sure, resource, above) == (said is True)
        assert satisfied(found.possible, resource, above) == (said is not False)
        if "Unknown" not in repr(residual):
            assert found.exact
    # The plain reading of the tree agrees wherever it says something.
    plain = residual.verdict(resource, above)
    assert plain is None or plain == said


@settings(max_examples=200, deadline=None)
@given(st.lists(tree, max_size=3), st.lists(tree, max_size=3), resources, above, st.sets(st.integers(0, 11)))
def test_what_cannot_be_said_widens_and_never_narrows(
    permits: list[filters.Filter],
    forbids: list[filters.Filter],
    resource: Entity,
    above: frozenset[EntityUid],
    mute: set[int],
) -> None:
    found = bounds(Residual(tuple(permits), tuple(forbids)), kind=KIND)
    less = found.within(lambda one: hash(one.leaf) % 12 not in mute)
    assert satisfied(found.sure, resource, above) >= satisfied(less.sure, resource, above)
    assert satisfied(found.possible, resource, above) <= satisfied(less.possible, resource, above)
    if less.exact:
        assert satisfied(less.sure, resource, above) == satisfied(found.sure, resource, above)


@given(tree, resources, above)
def test_the_opposite_is_the_opposite(
    one: filters.Filter, resource: Entity, above: frozenset[EntityUid]
) -> None:
    formula = bounds(Residual((one,)), kind=KIND).sure
    assert satisfied(opposite(formula), resource, above) is not satisfied(formula, resource, above)


def test_nothing_is_expressed_by_a_target_that_can_say_nothing() -> None:
    some = filters.Compare("n", Comparison.EQUAL, 1)
    found = bounds(Residual((some,), (filters.Has("n"),)), kind=KIND)
    assert found.within(lambda _one: False) == Bounds(sure=False, possible=True, exact=False)
    assert limited(Literal(some), lambda _one: False, otherwise=True) is True


def test_a_tree_too_large_is_decided_row_by_row() -> None:
    parts = [filters.Compare("n", Comparison.EQUAL, number) for number in range(5000)]
    found = bounds(Residual((filters.AnyOf(tuple(parts)),)), kind=KIND)
    assert (found.sure, found.possible, found.exact) == (False, True, False)
