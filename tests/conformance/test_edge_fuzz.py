"""Random bytes through the edge; the long run is `make soak`."""

from __future__ import annotations

from support.fuzz_edge import made, play


async def test_five_thousand_mutations_find_no_crash_no_hang_and_no_disagreement():
    counts = await play(count=5000, seed=20261123, seconds=120)
    assert counts["cases"] >= 1000
    assert counts["requests"] > counts["cases"] // 4
    assert counts["refused"] > counts["cases"] // 4
    assert min(counts["compared with h11"], counts["compared with aiohttp"]) > 100


def test_a_case_is_made_again_from_its_number():
    assert made(1, 77) == made(1, 77)
    assert made(1, 77) != made(1, 78)
