"""What each peer's program does: read rules and requests, time every decision, count the wrong ones."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rules = list[dict[str, Any]]
Decide = Callable[[Any], bool]


def main(build: Callable[[Rules], Decide], prepare: Callable[[dict[str, Any]], Any]) -> None:
    """Time `build(rules)` on each request that `prepare` made beforehand, within a budget of seconds."""
    work = json.loads(Path(sys.argv[1]).read_text())
    decide = build(work["rules"])
    asked = [(prepare(request), request["allow"]) for request in work["requests"]]
    decide(asked[0][0])
    took, wrong, until = [], 0, time.perf_counter() + work["seconds"]
    for request, expected in asked:
        before = time.perf_counter_ns()
        answer = decide(request)
        took.append((time.perf_counter_ns() - before) / 1000)
        wrong += answer is not expected
        if time.perf_counter() > until:
            break
    sys.stdout.write(json.dumps({"took": took, "wrong": wrong}))
