"""Tell once what an issuer says of somebody: when she first comes, when it changes, before it is old."""

from __future__ import annotations

import structlog

from doorward.core.clock import Clock
from doorward.core.errors import ConflictError, UnavailableError
from doorward.core.ports import Arrivals
from doorward.identity.claims import VerifiedToken

_REMEMBERED = 65_536
_REFUSED_SECONDS = 10.0
_log = structlog.get_logger()


class Announcer:
    """Remember what was told of whom; one per gateway process."""

    def __init__(self, arrivals: Arrivals | None, clock: Clock) -> None:
        """Without `arrivals` nobody is told anything: whoever is not linked is nobody."""
        self._arrivals, self._clock = arrivals, clock
        self._told: dict[tuple[str, str], tuple[int, float]] = {}

    async def tell(self, text: str, token: VerifiedToken, *, known: bool) -> None:
        """Let the directory know what the token says, if it may not know yet.

        For somebody it knows, a control plane that is gone changes nothing; for anybody else raise
        UnavailableError. What was refused there is not told again for a while.
        """
        arrival = token.arrival
        if self._arrivals is None or arrival is None or not (known or arrival.provision):
            return
        who, said = (token.issuer, token.subject), hash((arrival.attrs, arrival.groups, arrival.name))
        told, until = self._told.get(who, (0, 0.0))
        now = self._clock.monotonic()
        if told == said and now < until:
            return
        try:
            await self._arrivals.announce(text)
        except ConflictError:
            self._remember(who, said, now + _REFUSED_SECONDS)
        except UnavailableError:
            if not known:
                raise
            _log.warning("arrival_not_told", issuer=token.issuer)
        else:
            self._remember(who, said, now + arrival.max_age / 2)

    def _remember(self, who: tuple[str, str], said: int, until: float) -> None:
        if len(self._told) >= _REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[who] = (said, until)
