"""Join filters, simplified as far as left to right evaluation lets them be."""

from __future__ import annotations

from collections.abc import Iterable

from doorward.core import filters
from doorward.core.filters import Filter

_ALWAYS, _NEVER = filters.Constant(value=True), filters.Constant(value=False)


def conjunction(parts: Iterable[Filter]) -> Filter:
    """Join parts that must all hold, read left to right."""
    kept: list[Filter] = []
    for part in parts:
        if part == _NEVER:
            kept.append(part)
            break  # what stands right of it is not evaluated; what stands left may still err
        if part != _ALWAYS:
            kept.append(part)
    if kept and kept[0] == _NEVER:
        return _NEVER
    return _ALWAYS if not kept else kept[0] if len(kept) == 1 else filters.All(tuple(kept))


def disjunction(parts: Iterable[Filter]) -> Filter:
    """Join parts of which one must hold, read left to right."""
    kept: list[Filter] = []
    for part in parts:
        if part == _ALWAYS:
            kept.append(part)
            break
        if part != _NEVER:
            kept.append(part)
    if kept and kept[0] == _ALWAYS:
        return _ALWAYS
    return _NEVER if not kept else kept[0] if len(kept) == 1 else filters.AnyOf(tuple(kept))


def negation(part: Filter) -> Filter:
    """Return the opposite of a filter."""
    match part:
        case filters.Constant(value):
            return filters.Constant(value=not value)
    return filters.Not(part)
