"""Bound how often one address may fail: a guess costs a place, and too many cost a minute."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from doorward.console.oauth.refusal import OAuthError

if TYPE_CHECKING:
    from doorward.core.clock import Clock

WINDOW = 60.0  # seconds
MOST = 60
_ADDRESSES = 10_000


class Throttle:
    """Count failures by whoever failed, in windows of a minute; bounded memory."""

    def __init__(self, clock: Clock, *, most: int = MOST) -> None:
        """Let each fail so often in a window."""
        self._clock, self._most = clock, most
        self._failed: dict[str, tuple[float, int]] = {}

    def require(self, who: str) -> None:
        """Raise OAuthError (429) for one that failed too often."""
        began, count = self._failed.get(who, (0.0, 0))
        left = began + WINDOW - self._clock.monotonic()
        if count >= self._most and left > 0:
            raise OAuthError(
                "slow_down",
                "too many requests of this address were refused",
                status=HTTPStatus.TOO_MANY_REQUESTS,
                headers={"Retry-After": str(int(left) + 1)},
            )

    def failed(self, who: str) -> None:
        """Count a failure."""
        now = self._clock.monotonic()
        began, count = self._failed.pop(who, (now, 0))
        if now - began >= WINDOW:
            began, count = now, 0
        if len(self._failed) >= _ADDRESSES:
            del self._failed[next(iter(self._failed))]
        self._failed[who] = began, count + 1
