"""The one shape of every benchmark's result, as JSON for programs and as a table for people."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `ratio` is ours over each peer's, `target` what we promised."""

    name: str
    unit: str
    ours: float
    peers: dict[str, float] = field(default_factory=dict)
    target: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> dict[str, float]:
        """Return ours / peer, for each peer."""
        return {peer: float(f"{self.ours / value:.3g}") for peer, value in self.peers.items() if value}


def arguments(description: str) -> argparse.Namespace:
    """Read the options every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--data", type=Path, help="a directory with outside data")
    return parser.parse_args()


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def publish(figures: list[Figure], *, as_json: bool) -> None:
    """Print all figures."""
    if as_json:
        rows = [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    for figure in figures:
        peers = "  ".join(
            f"{peer} {value:.4g} ({value / figure.ours:.3g}x ours)" if figure.ours else f"{peer} {value:.4g}"
            for peer, value in figure.peers.items()
        )
        verdict = "" if figure.met is None else ("met" if figure.met else "NOT met")
        line = f"{figure.name:44} {figure.ours:>10.4g} {figure.unit:8} {figure.target} {verdict}".rstrip()
        sys.stdout.write(line + (f"\n{'':8}{peers}" if peers else "") + "\n")
