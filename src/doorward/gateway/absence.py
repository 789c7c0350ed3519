"""What a caller would be told of a name that does not exist, so that a hidden one can be answered alike.

A name that nobody registered is what the nearest name above it is. So the stand-in for a hidden name is one
that nobody can have registered, under the nearest name above it that the caller may view.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from doorward.core.model import EntityUid
from doorward.gateway.adapter import Ask
from doorward.gateway.circumstances import Circumstances
from doorward.gateway.judgement import Judged, Judgement, judge, principals_of
from doorward.gateway.ports import Standpoint


class Absence(msgspec.Struct, frozen=True):
    """State what would be decided if the hidden names did not exist; `within` is what the first lies under.

    `judgement` holds the denials that would be, None if there would be none.
    """

    judgement: Judgement | None
    within: EntityUid | None
    names: Mapping[EntityUid, EntityUid]

    def named(self, judged: Judged) -> EntityUid:
        """Return the name the caller asked for."""
        return self.names.get(judged.request.resource, judged.request.resource)

    def restored(self, text: str) -> str:
        """Return a text with the names the caller asked for in place of their stand-ins."""
        for stand_in, name in self.names.items():
            text = text.replace(stand_in.id, name.id)
        return text


def absence(
    standpoint: Standpoint, asks: tuple[Ask, ...], *, circumstances: Circumstances, now: datetime, mark: str
) -> Absence | None:
    """Decide `asks` as if the hidden names among them did not exist.

    `mark` is a text no name has: the request's id. None if nothing above a hidden name may be viewed either:
    then a missing name is as unknown as a hidden one.
    """
    several = len(principals_of(circumstances)) > 1
    replaced: list[Ask] = []
    names: dict[EntityUid, EntityUid] = {}
    within: EntityUid | None = None
    for ask in asks:
        wanted = ask
        if not _seen(standpoint, ask.resource, circumstances):
            above = next((u for u in _above(ask.resource) if _seen(standpoint, u, circumstances)), None)
            if above is None:
                return None
            stand_in = EntityUid(above.type, f"{above.id}/{mark}-{len(names)}")
            names[stand_in], within = ask.resource, within or above
            wanted = Ask(ask.action, stand_in)
        if several:
            replaced.append(wanted)
            continue
        # The first denial is what is said: a request that names much does not take longer for being hidden.
        judgement = judge(standpoint, (wanted,), circumstances=circumstances, now=now)
        if not judgement.allowed:
            return Absence(judgement, within, names)
    if several:
        judgement = judge(standpoint, replaced, circumstances=circumstances, now=now)
        return Absence(judgement, within, names)
    return Absence(None, within, names)


def _seen(standpoint: Standpoint, uid: EntityUid, circumstances: Circumstances) -> bool:
    return all(standpoint.visible(principal, uid) for principal in principals_of(circumstances))


def _above(uid: EntityUid) -> Iterator[EntityUid]:
    name = uid.id.rpartition("/")[0]
    while name:
        yield EntityUid(uid.type, name)
        name = name.rpartition("/")[0]
