"""Asset names: paths whose segments decide what covers what."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SEPARATOR = "/"
_STEPS = frozenset({"", ".", ".."})
_CONTROL = frozenset(map(chr, (*range(32), 127)))


def is_canonical(name: str) -> bool:
    """Return whether a name has one reading only: no empty, `.` or `..` segment, no control character.

    An upstream that folds `a//b` or `a/./b` into `a/b` would otherwise serve an object under a name
    that a stricter child asset does not cover.
    """
    return _STEPS.isdisjoint(name.split(SEPARATOR)) and _CONTROL.isdisjoint(name)


def lineage(name: str) -> Iterator[str]:
    """Yield the name and each name above it, nearest first; nothing for a name with two readings.

    `store/training/a.csv` yields itself, `store/training`, `store`; never `store/train`.
    One trailing `/` (a folder marker, a listing's prefix) names the same place as without it.
    """
    current = name.removesuffix(SEPARATOR)
    if not is_canonical(current):
        return
    while current:
        yield current
        current = current.rpartition(SEPARATOR)[0]
