"""What a decision rested on, as one hash: the request, and every entity its evaluation could read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from doorward.core.decision import AccessRequest
from doorward.core.model import EntityUid
from doorward.core.values import context_to_json, entity_to_json, uid_to_json
from doorward.directory.snapshot import Snapshot

_MAX_CLOSURES = 4096
_encode = msgspec.json.Encoder(order="deterministic").encode


class Inputs:
    """Hash requests on one snapshot; what entities look like in canonical JSON is kept within a bound."""

    def __init__(self, snapshot: Snapshot, literals: Iterable[EntityUid]) -> None:
        """Keep the snapshot, and the entities that policies read by name."""
        self._snapshot = snapshot
        self._literals = tuple(sorted(literals))
        self._closures: dict[tuple[EntityUid, ...], bytes] = {}

    def digest(self, request: AccessRequest) -> str:
        """Return the sha256 (hex) of the canonical JSON of everything the decision reads."""
        try:
            canonical = self._canonical(request)
        except UnicodeEncodeError:  # a name that is no text was denied, and still needs its record
            canonical = json.dumps(self._document(request), sort_keys=True).encode()
        return hashlib.sha256(canonical).hexdigest()

    def _canonical(self, request: AccessRequest) -> bytes:
        """Return what encoding the whole document gives, from parts that were encoded before."""
        return b'{"action":%b,"context":%b,"entities":%b,"principal":%b,"resource":%b}' % (
            _encode(uid_to_json(request.action)),
            _encode(context_to_json(request.context)),
            self._entities(request),
            _encode(uid_to_json(request.principal)),
            _encode(uid_to_json(request.resource)),
        )

    def _entities(self, request: AccessRequest) -> bytes:
        key = (*named(request), *self._literals)
        found = self._closures.get(key)
        if found is None:
            found = _encode(self._closure(key))
            if len(self._closures) >= _MAX_CLOSURES:
                self._closures.clear()
            self._closures[key] = found
        return found

    def _closure(self, uids: Iterable[EntityUid]) -> list[dict[str, Any]]:
        entities = self._snapshot.closure(uids)
        return [entity_to_json(entities[uid]) for uid in sorted(entities)]

    def _document(self, request: AccessRequest) -> dict[str, Any]:
        return {
            "action": uid_to_json(request.action),
            "context": context_to_json(request.context),
            "entities": self._closure((*named(request), *self._literals)),
            "principal": uid_to_json(request.principal),
            "resource": uid_to_json(request.resource),
        }


def named(request: AccessRequest) -> Iterator[EntityUid]:
    """Yield every entity the request names, in one order."""
    yield request.principal
    yield request.resource
    context = request.context
    for uid in (context.device.id, context.actor, context.environment, context.request.arguments):
        if uid is not None:
            yield uid
