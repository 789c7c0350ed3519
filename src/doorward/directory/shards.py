"""An immutable hash table whose next version shares all but the few small dicts that changed.

Copying one dict of 100,000 entries takes milliseconds; here a change copies a list of pointers and
one shard of about a hundred entries, so that its cost grows with the square root of the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_SHARD = 64
# Shards may grow to this multiple of their size before all is dealt out anew.
_CROWDED = 4
_MISSING = object()


class Shards(Mapping[K, V], Generic[K, V]):
    """Map keys to values; never changes. Readers need no lock."""

    __slots__ = ("_mask", "_size", "parts")

    def __init__(self, parts: list[dict[K, V]], size: int) -> None:
        """Keep shards, a power of two of them; use `of` and `changed`. Nobody writes to `parts`."""
        self.parts, self._mask, self._size = parts, len(parts) - 1, size

    @classmethod
    def of(cls, items: Mapping[K, V]) -> Self:
        """Deal items out to as many shards as their number asks for."""
        count = 1 << max(0, (len(items) // _SHARD).bit_length())
        parts: list[dict[K, V]] = [{} for _ in range(count)]
        for key, value in items.items():
            parts[hash(key) & (count - 1)][key] = value
        return cls(parts, len(items))

    def changed(self, put: Mapping[K, V], removed: Iterable[K] = ()) -> Self:
        """Return the table with keys taken out and others put in; itself if there are none."""
        gone = tuple(removed)
        if not put and not gone:
            return self
        parts, fresh, size = list(self.parts), set[int](), self._size
        for key in gone:
            part = self._own(parts, fresh, key)
            size -= part.pop(key, _MISSING) is not _MISSING
        for key, value in put.items():
            part = self._own(parts, fresh, key)
            size += key not in part
            part[key] = value
        if size > len(parts) * _SHARD * _CROWDED:
            return type(self).of({key: value for part in parts for key, value in part.items()})
        return type(self)(parts, size)

    def _own(self, parts: list[dict[K, V]], fresh: set[int], key: K) -> dict[K, V]:
        """Return the key's shard in `parts`, copied once before it is first written to."""
        number = hash(key) & self._mask
        if number not in fresh:
            parts[number] = dict(parts[number])
            fresh.add(number)
        return parts[number]

    def __getitem__(self, key: K) -> V:
        """Return the value of a key; raise KeyError."""
        return self.parts[hash(key) & self._mask][key]

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, /, default: V | T) -> V | T: ...

    def get(self, key: K, /, default: Any = None) -> Any:
        """Return the value of a key, or `default`."""
        return self.parts[hash(key) & self._mask].get(key, default)

    def __contains__(self, key: object) -> bool:
        """Return whether a key is there."""
        return key in self.parts[hash(key) & self._mask]

    def __iter__(self) -> Iterator[K]:
        """Yield the keys, in no order that means anything."""
        for part in self.parts:
            yield from part

    def __len__(self) -> int:
        """Return how many keys there are."""
        return self._size
