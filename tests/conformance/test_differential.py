"""Random policies and requests: both tiers answer as Cedar does, with the same reasons and errors.

`make soak` runs a million of them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from doorward.cedar.engine import Answer
from doorward.cedar.oracle import Opinion
from doorward.core.decision import Effect
from support import differential
from support.differential import differences, run


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_both_tiers_decide_like_cedar(seed: int) -> None:
    seen: Counter[str] = Counter()
    assert next(differences(5_000, seed, seen), "") == ""
    assert min(seen["allow"], seen["deny"], seen["reasons"], seen["errors"]) > 300
    assert min(seen["strict differs"], seen["links"], seen["functions"]) > 50


def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = differential.told

    def wrong(answer: Answer) -> Opinion:
        said = plain(answer)
        return said if said.determining != ("policy2",) else Opinion(Effect.ALLOW, said.determining)

    monkeypatch.setattr(differential, "told", wrong)
    assert "policy2" in next(differences(2_000, 1))


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    state = tmp_path / "soak.json"
    first = run(200, 9, 0, state)
    assert run(400, 9, 0, state) == run(400, 9, 0, None) != first
    with pytest.raises(SystemExit, match="belongs to seed 9"):
        run(400, 8, 0, state)
