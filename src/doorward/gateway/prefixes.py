"""A caller's filter as key prefixes: what a list may show whole, what it need not even read.

The longest prefix that covers a key says what becomes of it. Every name that is shown is decided all the
same: prefixes only spare reading, from the store, pages of keys that nobody here may see.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from doorward.core.model import EntityUid

Rules = Sequence[tuple[str, bool | None]]


class Place(msgspec.Struct, frozen=True):
    """Name where a list looks; `uid_of` says what a name there stands for, `also` where that changes."""

    name: str
    uid_of: Callable[[str], EntityUid]
    also: tuple[str, ...] = ()


class Prefixes(msgspec.Struct, frozen=True):
    """Rules by prefix (whole segments), in order; None leaves a key to be decided by itself."""

    rules: tuple[tuple[str, bool | None], ...]

    @classmethod
    def of(cls, askers: Iterable[Rules | None]) -> Prefixes | None:
        """Join what each of those says who must all be allowed; None if one of them says nothing."""
        joined: Prefixes | None = None
        for rules in askers:
            if rules is None:
                return None
            one = cls(tuple(rules))
            joined = one if joined is None else _joined(joined, one)
        return joined

    @property
    def allowed(self) -> tuple[str, ...]:
        """Return the prefixes under which everything is allowed."""
        return self._where(verdict=True)

    @property
    def denied(self) -> tuple[str, ...]:
        """Return the prefixes under which everything is denied."""
        return self._where(verdict=False)

    def verdict(self, name: str) -> bool | None:
        """Return what the longest prefix says of a name; None: decide it."""
        known: Mapping[str, bool | None] = dict(self.rules)
        while name not in known and "/" in name:
            name = name.rpartition("/")[0]
        return known.get(name)

    def throughout(self, prefix: str) -> bool | None:
        """Return the one verdict on everything at and under a prefix, None if there is not one."""
        found = {self.verdict(prefix), *(said for _, said in self._under(prefix))}
        return found.pop() if len(found) == 1 else None

    def _where(self, *, verdict: bool) -> tuple[str, ...]:
        whole = [name for name, _ in self.rules if self.throughout(name) is verdict]
        return tuple(name for name in whole if not any(name.startswith(f"{other}/") for other in whole))

    def _under(self, prefix: str) -> Sequence[tuple[str, bool | None]]:
        names = [name for name, _ in self.rules]
        return self.rules[bisect_left(names, f"{prefix}/") : bisect_left(names, f"{prefix}0")]


def _joined(one: Prefixes, other: Prefixes) -> Prefixes:
    names = sorted({name for name, _ in (*one.rules, *other.rules)})
    return Prefixes(tuple((name, _both(one.verdict(name), other.verdict(name))) for name in names))


def _both(one: bool | None, other: bool | None) -> bool | None:  # noqa: FBT001 -- two verdicts
    if one is False or other is False:
        return False
    return True if one and other else None
