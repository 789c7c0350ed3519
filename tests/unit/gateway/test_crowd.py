from __future__ import annotations

import pytest

from doorward.core.errors import UnavailableError
from doorward.core.model import EntityUid
from doorward.gateway.streams import Crowd

DANA = EntityUid.of("User", "dana")


class Shared:
    """Places of all gateways, in one dictionary."""

    def __init__(self):
        self.taken, self.gone = 0, False

    async def enter(self, _place, *, most):
        if self.gone:
            raise UnavailableError("gone")
        if self.taken >= most:
            return None
        self.taken += 1

        def leave():
            self.taken -= 1

        return leave


async def fill(crowd, who=DANA):
    places = []
    while (place := await crowd.enter(who)) is not None:
        places.append(place)
    return places


@pytest.mark.parametrize(("most", "gateways"), [(1, 2), (10, 2), (100, 3), (7, 4), (5, 1)])
async def test_all_gateways_together_never_pass_the_bound_and_one_alone_gets_half(most, gateways):
    shared = Shared()
    crowds = [Crowd(most, gateways=gateways, places=shared) for _ in range(gateways)]
    first = await fill(crowds[0])
    assert len(first) >= most / 2
    others = [place for crowd in crowds[1:] for place in await fill(crowd)]
    assert len(first) + len(others) == most
    for place in (*first, *others):
        place.leave()
    assert shared.taken == 0
    assert not any(map(len, crowds))


async def test_without_the_owner_only_a_crowd_is_refused():
    shared = Shared()
    shared.gone = True
    crowd = Crowd(10, gateways=2, places=shared)
    for _ in range(2):
        assert await crowd.enter(DANA) is not None
    with pytest.raises(UnavailableError):
        await crowd.enter(DANA)
    assert await crowd.enter(EntityUid.of("User", "omar")) is not None
