"""Where on earth a request comes from, as far as the configuration says; nothing is guessed."""

from __future__ import annotations

import math

import msgspec

_EARTH_KM = 6371.0

Coordinates = tuple[float, float]


class Whereabouts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a request comes from: its address, the zone that lies in, and where that network lies."""

    ip: str
    zone: str
    country: str | None = None
    at: Coordinates | None = None

    def __str__(self) -> str:
        """Return it for people: `192.0.2.7 (zone office, NL)`."""
        known = [f"zone {self.zone}", *([] if self.country is None else [self.country])]
        return f"{self.ip} ({', '.join(known)})"


def kilometres(one: Coordinates, other: Coordinates) -> float:
    """Return the distance over ground (haversine on a sphere, wrong by at most 0.6 %)."""
    (lat1, lon1), (lat2, lon2) = (tuple(map(math.radians, point)) for point in (one, other))
    half = (
        math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    )
    return 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, half)))
