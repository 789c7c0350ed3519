"""What surrounds a request (part of step 4): where it comes from, and what is odd about its credential.

Locations are those of configured zones, else of the geo file; neither says anything = nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from doorward.core.feed import Place
from doorward.core.identity import Caller, Method
from doorward.core.locations import Whereabouts
from doorward.core.sightings import Lookout, Sighting
from doorward.gateway.circumstances import Circumstances
from doorward.gateway.ports import KnownWorld
from doorward.gateway.programs import product_of
from doorward.gateway.visit import Visit

_NOBODY = frozenset[str]()


class Surroundings:
    """Locate requests, and keep the lookout told of them."""

    def __init__(
        self, *, geo: Callable[[str], Place] = lambda _: Place(), lookout: Lookout | None = None
    ) -> None:
        """Take what locates an address that lies in no zone, and who keeps watch over credentials."""
        self._geo, self._lookout = geo, lookout

    @property
    def changed(self) -> int:
        """Return a number that grows whenever a signal appears."""
        return 0 if self._lookout is None else self._lookout.changed

    def where(self, ip: str, world: KnownWorld) -> Whereabouts:
        """Return where an address is; one in a zone is where the zone says, or nobody knows."""
        zone = world.zone_of(ip)
        place = self._geo(ip) if zone == "unknown" else world.place_of(ip)
        north, east = place.latitude, place.longitude
        return Whereabouts(ip, zone, place.country, None if north is None or east is None else (north, east))

    async def notice(self, visit: Visit, world: KnownWorld) -> None:
        """Have it noted that a credential is used here and now, before it is decided what it may do."""
        caller, request = visit.caller, visit.request
        if self._lookout is None or caller is None:
            return
        agents = [value for name, value in request.headers if name == "user-agent"]
        sighting = Sighting(
            credential=credential_of(caller),
            principal=str(caller.principal),
            where=self.where(request.peer.ip, world),
            client=product_of(agents[0] if agents else None),
            tls=request.peer.tls,
            many=may_be_many(caller),
            request_id=request.id,
        )
        await self._lookout.see(sighting)

    def renewed(self, circumstances: Circumstances, world: KnownWorld) -> Circumstances:
        """Return the circumstances with what surrounds them now."""
        where = self.where(circumstances.ip, world)
        signals = _NOBODY
        if self._lookout is not None:
            signals = self._lookout.signals(credential_of(circumstances.caller))
        if where.country == circumstances.country and signals == circumstances.signals:
            return circumstances
        return msgspec.structs.replace(circumstances, country=where.country, signals=signals)


def credential_of(caller: Caller) -> str:
    """Return what names a credential among all: how it was shown, whose word it is, its own id."""
    # A key is one credential whether it is shown or signs.
    method = Method.API_KEY if caller.method == Method.SIGNATURE else caller.method
    return " ".join(filter(None, (str(method), caller.issuer, caller.subject, caller.credential)))


def may_be_many(caller: Caller) -> bool:
    """Return whether a credential is meant to be at several places: a workload's that is tied to none."""
    workload = caller.principal.kind == "Service" or caller.method == Method.SVID
    return workload and not caller.tied and caller.device is None
