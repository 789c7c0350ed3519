"""What must hold before a request is decided: the versions it demands are here, and it names not too much.

`Doorward-At-Least` demands a decision on nothing older than versions the caller knows. Any caller whose
credential verified may: it can only make an answer later or stricter. Who is not known does not wait. It
is checked again on the very standpoint that decides.
"""

from __future__ import annotations

from doorward.core import versions
from doorward.core.errors import BehindError, PayloadTooLargeError
from doorward.core.versions import PATIENCE
from doorward.gateway.adapter import Naming
from doorward.gateway.ports import Point
from doorward.gateway.visit import StepLeftOutError, Visit

# Each name is decided while nobody else's request is: more at once would keep the others waiting.
_MOST_ASKS = 1000


def require_bounded(naming: Naming) -> None:
    """Raise PayloadTooLargeError if a request names more than is decided at once."""
    if len(naming.asks) > _MOST_ASKS:
        raise PayloadTooLargeError(
            f"the request names {len(naming.asks)} things, and {_MOST_ASKS} are decided at once",
            hint="Send it in parts.",
        )


async def await_demanded(visit: Visit, point: Point) -> None:
    """Wait until what a request demands has arrived; raise BehindError after a second without it."""
    stated = visit.request.header(versions.HEADER.lower())
    if stated is None:
        return
    visit.demand = versions.read(stated)
    await point.at_least(visit.demand, PATIENCE)


def require_demanded(visit: Visit) -> None:
    """Raise BehindError if the standpoint a request is decided on is older than what it demands."""
    demand, standpoint = visit.demand, visit.standpoint
    if demand is None:
        return
    if standpoint is None:
        raise StepLeftOutError
    behind = standpoint.snapshot.version < demand.entities
    if behind or demand.bundle not in {"", standpoint.bundle_digest}:
        raise BehindError(demand)
