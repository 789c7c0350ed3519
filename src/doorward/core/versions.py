"""Versions of what decisions rest on, as callers name them: `v42` of entities, `sha256:…` of policies.

A write answers with the versions it made (`Doorward-At-Least`). Sent back on a later request as they
came, they demand a decision on nothing older: after somebody lost a right, no request that follows can
be answered from before (the "new enemy" of Zanzibar, USENIX ATC 2019, section 2.2).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from doorward.core.errors import InvalidRequestError

HEADER: Final = "Doorward-At-Least"
# What a request may be held back for; seconds.
PATIENCE: Final = 1.0
_ENTITIES = re.compile(r"v(0|[1-9][0-9]{0,17})")
_BUNDLE = re.compile(r"sha256:[0-9a-f]{64}")


class AtLeast(msgspec.Struct, frozen=True):
    """Demand entities of this version or a later one, and this very bundle (digests have no order).

    0 and the empty text demand nothing.
    """

    entities: int = 0
    bundle: str = ""

    def __str__(self) -> str:
        """Return the form that `read` reads."""
        return " ".join(filter(None, (f"v{self.entities}" if self.entities else "", self.bundle)))


def read(text: str) -> AtLeast:
    """Read `v42`, `sha256:…`, or both, with a space between; raise InvalidRequestError for anything else."""
    entities, bundle = 0, ""
    words = text.split(" ")
    for word in words:
        if (found := _ENTITIES.fullmatch(word)) and not entities:
            entities = int(found[1])
        elif _BUNDLE.fullmatch(word) and not bundle:
            bundle = word
        else:
            raise InvalidRequestError(
                f"`{HEADER}` names no versions",
                hint="Send it as an earlier answer gave it: `v42`, `sha256:…`, or both with a space between.",
            )
    return AtLeast(entities, bundle)
