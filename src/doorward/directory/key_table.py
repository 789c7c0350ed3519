"""API keys by id, by hash and by S3 access key id: an immutable table that changes share when they can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from doorward.core.identity import KeyRecord


class KeyTable:
    """Hold unrevoked keys; every look-up is one in a hash table."""

    __slots__ = ("by_access_key_id", "by_hash", "by_id")

    def __init__(self, keys: Iterable[KeyRecord] = ()) -> None:
        """Index the keys; a key without an access key id is not found by an empty one."""
        self.by_id: Mapping[str, KeyRecord] = {key.id: key for key in keys}
        kept = self.by_id.values()
        self.by_hash: Mapping[str, KeyRecord] = {key.hash: key for key in kept}
        self.by_access_key_id: Mapping[str, KeyRecord] = {
            key.access_key_id: key for key in kept if key.access_key_id
        }

    def changed(self, added: Iterable[KeyRecord], removed: Iterable[str]) -> KeyTable:
        """Return the table with keys taken out and others put in; itself if there are none."""
        gone, new = set(removed), tuple(added)
        if not gone and not new:
            return self
        return KeyTable((*(key for key in self.by_id.values() if key.id not in gone), *new))
