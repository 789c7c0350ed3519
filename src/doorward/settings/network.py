"""Where requests come from, and what is odd about where a credential is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from doorward.settings.section import Section

Seconds = Annotated[float, Field(gt=0, le=90 * 86_400)]


class NetworkSettings(Section):
    """Locations, and the rules by which the use of a credential is odd. Seconds, km, km/h.

    `geo` is a CSV file `network,country,lat,lon`.
    `together` lists zones that count as one place: a person is in the office and in its VPN.
    Addresses in no zone are one place if they share a network of `prefix_v4` or `prefix_v6` bits.

    `shared-credential`: within `shared_within`, one credential changed its place at least `shared_switches`
    times and came back to where it was. `impossible-travel`: two places further apart than `travel_distance`,
    faster than `travel_speed`. `client-changed`: another program than those of its first `client_learned`
    seconds. A signal ends `signals_last` after what last showed it. Use at the same place is noted every
    `notice_every`; what a credential did is forgotten after `remember`.
    """

    geo: Path | None = None
    together: tuple[tuple[str, ...], ...] = ()
    prefix_v4: Annotated[int, Field(ge=8, le=32)] = 24
    prefix_v6: Annotated[int, Field(ge=16, le=128)] = 48
    signals: bool = True
    shared_within: Seconds = 300.0
    shared_switches: Annotated[int, Field(ge=2, le=100)] = 2
    travel_speed: Annotated[float, Field(ge=1, le=100_000)] = 900.0
    travel_distance: Annotated[float, Field(ge=1, le=20_000)] = 100.0
    client_learned: Seconds = 600.0
    signals_last: Seconds = 900.0
    notice_every: Annotated[float, Field(ge=1, le=3600)] = 60.0
    remember: Seconds = 30 * 86_400.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.shared_within < 2 * self.notice_every:
            raise ValueError(
                f"[network] shared_within = {self.shared_within:g} is too short for notice_every = "
                f"{self.notice_every:g}: it must be at least twice as long"
            )
        listed = [zone for zones in self.together for zone in zones]
        twice = {zone for zone in listed if listed.count(zone) > 1}
        if twice:
            raise ValueError(f"[network] together: `{min(twice)}` is listed twice; one list per place")
        return self
