"""Ready-made policies, each pack a directory of Cedar files with their tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

STARTER = "starter"


def files(pack: str = STARTER) -> Iterator[tuple[Path, str]]:
    """Yield (relative path, text) of every file of a pack."""
    yield from _walk(resources.files(__name__).joinpath(pack), Path())


def names() -> list[str]:
    """Return the names of all packs."""
    folders = (entry for entry in resources.files(__name__).iterdir() if entry.is_dir())
    return sorted(entry.name for entry in folders if not entry.name.startswith("_"))


def _walk(folder: Traversable, inside: Path) -> Iterator[tuple[Path, str]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir():
            if not entry.name.startswith("_"):
                yield from _walk(entry, inside / entry.name)
        elif entry.name.endswith((".cedar", ".cedarschema", ".yaml", ".toml", ".md")):
            yield inside / entry.name, entry.read_text("utf-8")
