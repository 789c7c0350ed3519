"""Draw lines on two logarithmic axes as SVG, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 420, 70, 150, 40, 50
_COLOURS = ("#0b7a75", "#5b9bd5", "#c0392b", "#8e6bbf", "#b8860b", "#6b7280", "#d9600b")
_LINE = 15


def draw(path: Path, lines: Mapping[str, Mapping[int, float]]) -> None:
    """Write the chart: policies across, microseconds up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_svg(lines)) + "\n")


def _svg(lines: Mapping[str, Mapping[int, float]]) -> Iterator[str]:
    xs = sorted({x for line in lines.values() for x in line})
    ys = [y for line in lines.values() for y in line.values()]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def across(x: float) -> float:
        share = math.log10(x / xs[0]) / math.log10(xs[-1] / xs[0])
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def up(y: float) -> float:
        share = (math.log10(y) - low) / (high - low)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    title = "Latency of one decision (median, logarithmic)"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif" font-size="13">'
    )
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/><g fill="#1f2937">'
    yield f'<text x="{_LEFT}" y="22" font-size="15" font-weight="600">{title}</text>'
    for power in range(low, high + 1):
        y = up(10**power)
        yield f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="#e5e7eb"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{_time(10**power)}</text>'
    for x in xs:
        yield f'<text x="{across(x)}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{x:,}</text>'
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">policies</text></g>'
    ends = {name: (across(max(line)), up(line[max(line)])) for name, line in lines.items()}
    labels = _apart(ends)
    for (name, line), colour in zip(lines.items(), _COLOURS, strict=False):
        points = [(across(x), up(y)) for x, y in sorted(line.items())]
        path = "L".join(f"{x} {y}" for x, y in points)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        yield from (f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in points)
        yield f'<text x="{points[-1][0] + 10}" y="{labels[name] + 4}" fill="{colour}">{escape(name)}</text>'
    yield "</svg>"


def _apart(ends: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Return how high each line's name stands: where it ends, and no two names on each other."""
    heights: dict[str, float] = {}
    for name, (x, y) in sorted(ends.items(), key=lambda end: end[1]):
        above = [heights[other] for other in heights if ends[other][0] == x]
        heights[name] = max([y, *(height + _LINE for height in above)])
    return heights


def _time(microseconds: float) -> str:
    return f"{microseconds:g} µs" if microseconds < 1000 else f"{microseconds / 1000:g} ms"
