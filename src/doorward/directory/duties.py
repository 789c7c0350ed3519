"""Duties one person never holds together, whoever assigns them and by whichever road."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from doorward.core.errors import ConflictError
from doorward.core.model import Entity, EntityUid

# Who judges the log may not be who can change what it is about.
_APART: Final = ((EntityUid.of("Role", "admin"), EntityUid.of("Role", "auditor")),)


def require_apart(entities: Iterable[Entity]) -> None:
    """Raise ConflictError for a principal that holds two duties which must stay apart."""
    for entity in entities:
        for one, other in _APART:
            if one in entity.parents and other in entity.parents:
                raise ConflictError(
                    f"{entity.uid} would be {one.id} and {other.id} at once",
                    hint=f"Give one of the two roles to somebody else: an {other.id} changes nothing.",
                )
