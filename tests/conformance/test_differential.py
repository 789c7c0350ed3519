"""Random policies and requests: both tiers answer as Cedar does, with the same reasons and errors."""

from __future__ import annotations

from collections import Counter

import pytest

from support.differential import differences


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_both_tiers_decide_like_cedar(seed: int) -> None:
    seen: Counter[str] = Counter()
    assert next(differences(5_000, seed, seen), "") == ""
    assert min(seen["allow"], seen["deny"], seen["reasons"], seen["errors"]) > 500
