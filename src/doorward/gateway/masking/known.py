"""Remember, per version of an object, how it is masked and where records start: ranges need no re-reading."""

from __future__ import annotations

import asyncio
import bisect
from collections import OrderedDict

from doorward.gateway.masking.plan import Labels, MaskPlan

_LEAST_SPACING = 256 * 1024
_MOST_OFFSETS = 4096

Version = tuple[str, Labels, str, str]


class KnownObject:
    """Hold the plan of one version and offsets at which a masker may start.

    INVARIANT: every offset is 0 or the start of a record, for the bytes of this version only.
    """

    def __init__(self, total: int) -> None:
        """Know nothing yet of an object of `total` bytes."""
        self.plan: MaskPlan | None = None
        # Held while the way to a far range is read, so that parallel ranges do not all read it.
        self.lock = asyncio.Lock()
        self._offsets = [0]
        self._spacing = max(_LEAST_SPACING, total // _MOST_OFFSETS)

    def nearest(self, offset: int) -> int:
        """Return the last known start at or before `offset`."""
        if self.plan is None or not self.plan.resumable:
            return 0
        return self._offsets[bisect.bisect_right(self._offsets, offset) - 1]

    def note(self, offset: int) -> None:
        """Remember a start, unless one near it is known."""
        at = bisect.bisect_right(self._offsets, offset)
        if offset - self._offsets[at - 1] < self._spacing:
            return
        if at < len(self._offsets) and self._offsets[at] - offset < self._spacing:
            return
        self._offsets.insert(at, offset)


class KnownObjects:
    """Hold the most recently read versions; bounded (each at most some 100 KB)."""

    def __init__(self, capacity: int = 256) -> None:
        """Bound the number of versions."""
        self._capacity = capacity
        self._known: OrderedDict[Version, KnownObject] = OrderedDict()

    def of(self, version: Version, total: int) -> KnownObject:
        """Return what is known of (bucket, key and declared type, ETag, mask)."""
        known = self._known.pop(version, None) or KnownObject(total)
        self._known[version] = known
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known
