"""Add a ready-made pack to a policies directory: all of it is admitted first, or nothing is written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import msgspec

from doorward.cedar.admission import SCHEMA
from doorward.core.errors import ConflictError, NotFoundError
from doorward.policies import packs
from doorward.policies.workspace import Workspace, packaged_schema

ORG = "org.yaml"
# A pack's part of these is added to what stands in the directory; other files are whole.
_JOINED = frozenset({SCHEMA, "pep.toml"})


class Adoption(msgspec.Struct, frozen=True):
    """What adding a pack writes (relative path -> whole text), and the people and assets it states."""

    files: dict[Path, str]
    org: str = ""

    @property
    def schema(self) -> str | None:
        """Return the schema that rules with the pack, None if it is the one that rules now."""
        return self.files.get(Path(SCHEMA))


def adoption_of(pack: str, directory: Path) -> Adoption:
    """Return what adding a pack would write; raise NotFoundError, or ConflictError where files differ."""
    if pack not in packs.names():
        raise NotFoundError(f"there is no pack `{pack}`", hint=f"Known: {', '.join(packs.names())}.")
    wanted: dict[Path, str] = {}
    org = ""
    for relative, text in packs.files(pack):
        if relative == Path(ORG):
            org = text
        elif (whole := _whole(directory / relative, text)) is not None:
            wanted[relative] = whole
    return Adoption(wanted, org)


def write(adoption: Adoption, directory: Path) -> None:
    """Write the files once the directory with them is admitted; raise InvalidPolicyError otherwise."""
    with tempfile.TemporaryDirectory(prefix="doorward-pack-") as folder:
        trial = Path(folder) / directory.name
        shutil.copytree(directory, trial)
        _write(adoption, trial)
        Workspace(trial).load()
    _write(adoption, directory)


def _write(adoption: Adoption, directory: Path) -> None:
    # The schema first: policies that need it are refused without it.
    for relative, text in sorted(adoption.files.items(), key=lambda item: item[0].name != SCHEMA):
        file = directory / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)


def _whole(file: Path, text: str) -> str | None:
    """Return what the file must hold, None where it holds it already."""
    present = file.read_text("utf-8") if file.exists() else None
    if file.name in _JOINED:
        base = present if present is not None else packaged_schema() if file.name == SCHEMA else ""
        return None if text in base else f"{base.rstrip()}\n\n{text}".lstrip()
    if present is None:
        return text
    if present == text:
        return None
    raise ConflictError(
        f"{file} is there already and says something else", hint="Move it away, or keep it as it is."
    )
