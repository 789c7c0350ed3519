"""API keys by id, by hash and by S3 access key id: an immutable table that changes share when they can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from doorward.core.identity import KeyRecord


class KeyTable:
    """Hold unrevoked keys; every look-up is one in a hash table."""

    __slots__ = ("by_access_key_id", "by_hash", "by_id")

    def __init__(
        self,
        by_id: dict[str, KeyRecord],
        by_hash: dict[str, KeyRecord],
        by_access_key_id: dict[str, KeyRecord],
    ) -> None:
        """Keep three dicts over the same keys; use `of` and `changed`."""
        self.by_id: Mapping[str, KeyRecord] = by_id
        self.by_hash: Mapping[str, KeyRecord] = by_hash
        self.by_access_key_id: Mapping[str, KeyRecord] = by_access_key_id

    @classmethod
    def of(cls, keys: Iterable[KeyRecord]) -> KeyTable:
        """Index keys; one without an access key id is not found by an empty one."""
        return cls({}, {}, {}).changed(keys, ())

    def changed(self, added: Iterable[KeyRecord], removed: Iterable[str]) -> KeyTable:
        """Return the table with keys taken out and others put in; itself if there are none.

        Copies whole dicts rather than building them anew: a revocation among 100,000 keys takes
        milliseconds.
        """
        gone, new = tuple(removed), tuple(added)
        if not gone and not new:
            return self
        by_id, by_hash, by_access = dict(self.by_id), dict(self.by_hash), dict(self.by_access_key_id)
        for key_id in (*gone, *(key.id for key in new)):
            before = by_id.pop(key_id, None)
            if before is not None:
                by_hash.pop(before.hash, None)
                by_access.pop(before.access_key_id, None)
        for key in new:
            by_id[key.id] = by_hash[key.hash] = key
            if key.access_key_id:
                by_access[key.access_key_id] = key
        return KeyTable(by_id, by_hash, by_access)
