"""Say exactly when something is allowed: the allowed points of a grid as a few conditions in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from doorward.core.decision import Change
from doorward.decisions.grid import Dimension, Grid

Point = tuple[int, ...]
Box = tuple[frozenset[int], ...]
Condition = tuple[Change, ...]


def boxes_of(grid: Grid, allowed: frozenset[Point]) -> tuple[Box, ...]:
    """Return boxes that together hold exactly the allowed points, the widest first found."""
    left = sorted(allowed)
    found: list[Box] = []
    while left:
        box = _widest(grid, left[0], allowed)
        found.append(box)
        left = [point for point in left if not inside(box, point)]
    return tuple(found)


def inside(box: Box, point: Point) -> bool:
    """Return whether a point lies in a box."""
    return all(index in side for side, index in zip(box, point, strict=True))


def condition_of(grid: Grid, box: Box) -> Condition:
    """Return what must hold for the points of a box and for no other; empty for the whole grid."""
    return tuple(
        change
        for dimension, side in zip(grid.dimensions, box, strict=True)
        if len(side) < len(dimension.options)
        for change in _side(dimension, side)
    )


def _widest(grid: Grid, start: Point, allowed: frozenset[Point]) -> Box:
    box: list[frozenset[int]] = [frozenset({index}) for index in start]
    for number, dimension in enumerate(grid.dimensions):
        for index in range(len(dimension.options)):
            slab = [*box[:number], frozenset({index}), *box[number + 1 :]]
            if index not in box[number] and all(point in allowed for point in product(*slab)):
                box[number] |= {index}
    return tuple(box)


def _side(dimension: Dimension, side: frozenset[int]) -> Iterator[Change]:
    chosen = [dimension.options[index] for index in sorted(side)]
    common = [fact for fact in chosen[0].facts if all(fact in option.facts for option in chosen)]
    if _selected(dimension, common) == side:
        yield from _least(dimension, common, side)
        return
    each = [
        _and(_least(dimension, list(dimension.options[index].facts), frozenset({index})))
        for index in sorted(side)
    ]
    yield Change(
        " || ".join(f"({change.change})" if " && " in change.change else change.change for change in each),
        " or ".join(change.say for change in each),
    )


def _selected(dimension: Dimension, facts: Sequence[Change]) -> frozenset[int]:
    return frozenset(
        index for index, option in enumerate(dimension.options) if all(fact in option.facts for fact in facts)
    )


def _least(dimension: Dimension, facts: list[Change], side: frozenset[int]) -> list[Change]:
    """Drop what need not be said: negations first, then what stands last."""
    kept = list(facts)
    last_first = list(reversed(facts))
    last_first.sort(key=lambda fact: not fact.change.startswith("!"))
    for fact in last_first:
        fewer = [other for other in kept if other != fact]
        if _selected(dimension, fewer) == side:
            kept = fewer
    return kept


def _and(facts: Sequence[Change]) -> Change:
    return Change(" && ".join(fact.change for fact in facts), " and ".join(fact.say for fact in facts))
