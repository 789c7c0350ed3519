"""API keys by id, by hash and by S3 access key id: an immutable table that changes share when they can."""

from __future__ import annotations

from collections.abc import Iterable

from doorward.core.identity import KeyRecord
from doorward.directory.shards import Shards


class KeyTable:
    """Hold unrevoked keys; every look-up is one in a hash table."""

    __slots__ = ("by_access_key_id", "by_hash", "by_id")

    def __init__(
        self,
        by_id: Shards[str, KeyRecord],
        by_hash: Shards[str, KeyRecord],
        by_access_key_id: Shards[str, KeyRecord],
    ) -> None:
        """Keep three tables over the same keys; use `of` and `changed`."""
        self.by_id, self.by_hash, self.by_access_key_id = by_id, by_hash, by_access_key_id

    @classmethod
    def of(cls, keys: Iterable[KeyRecord]) -> KeyTable:
        """Index keys; one without an access key id is not found by an empty one."""
        known = {key.id: key for key in keys}
        return cls(
            Shards.of(known),
            Shards.of({key.hash: key for key in known.values()}),
            Shards.of(_by_access(known.values())),
        )

    def changed(self, added: Iterable[KeyRecord], removed: Iterable[str]) -> KeyTable:
        """Return the table with keys taken out and others put in; itself if there are none."""
        new = {key.id: key for key in added}
        before = [self.by_id[key_id] for key_id in {*removed, *new} if key_id in self.by_id]
        if not new and not before:
            return self
        return KeyTable(
            self.by_id.changed(new, [key.id for key in before]),
            self.by_hash.changed({key.hash: key for key in new.values()}, [key.hash for key in before]),
            self.by_access_key_id.changed(
                _by_access(new.values()), [key.access_key_id for key in before if key.access_key_id]
            ),
        )


def _by_access(keys: Iterable[KeyRecord]) -> dict[str, KeyRecord]:
    return {key.access_key_id: key for key in keys if key.access_key_id}
