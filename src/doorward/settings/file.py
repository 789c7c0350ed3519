"""Read `doorward.toml` and the environment; every mistake gets file:line and the nearest right key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from doorward.core.errors import InvalidConfigError
from doorward.settings.provisioning import DirectorySourceSettings, Inactive, ProvisioningSettings
from doorward.settings.sections import (
    HeaderCredential,
    IntrospectionSettings,
    IssuerSettings,
    MtlsCredential,
    S3Credential,
    Settings,
    SpiffeSettings,
    TlsSettings,
    UpstreamSettings,
)

CONFIG_NAME = "doorward.toml"


def load(path: Path | None = None, *, data: Path | None = None) -> Settings:
    """Read and check the configuration file and the environment.

    Without `path`, `./doorward.toml` is read if it is there. Raises InvalidConfigError with
    file:line and the nearest right key.
    """
    file = path or Path(CONFIG_NAME)
    text = "" if path is None and not file.exists() else _read(file)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as reason:
        line = re.search(r"at line (\d+)", str(reason))
        place = f"{file}:{line[1]}" if line else f"{file}:{len(text.splitlines())}"
        raise InvalidConfigError(f"{place}: {reason}", hint="The file is TOML: key = value.") from reason
    document["base"] = file.parent.absolute()
    if data is not None:
        document["data"] = data
    try:
        settings = Settings(**document)
    except ValidationError as reason:
        raise _explained(reason, file, text) from None
    # --data wins over DOORWARD_DATA, and one absolute path is safe to hand to child processes.
    chosen = data or settings.data
    return settings.model_copy(update={"data": chosen.absolute()})


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as reason:
        raise InvalidConfigError(f"{file} does not exist", hint="`doorward init DIR` writes one.") from reason
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidConfigError(f"{file} cannot be read: {reason}") from reason


def _explained(error: ValidationError, file: Path, text: str) -> InvalidConfigError:
    """Turn pydantic's first error into a sentence with file:line and the nearest right key."""
    found = error.errors(include_url=False, include_input=False)
    # A misspelt key also makes the right one missing: the misspelling is what helps.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    where = _without_tag(first["loc"])
    line = _line_of(where, text)
    place = f"{file}:{line}" if line else str(file)
    dotted = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        known = sorted(_fields_at(where[:-1]))
        near = difflib.get_close_matches(str(where[-1]), known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys here: {', '.join(known)}."
        return InvalidConfigError(f"{place}: unknown key `{dotted}`", hint=hint)
    if first["type"] == "missing":
        return InvalidConfigError(f"{place}: `{dotted}` is missing")
    if first["type"] == "literal_error":
        return _not_a_choice(error, first, f"{place}: {dotted}")
    message = first["msg"].removeprefix("Value error, ")
    return InvalidConfigError(f"{place}: {dotted + ': ' if dotted else ''}{message}")


def _not_a_choice(error: ValidationError, first: ErrorDetails, place: str) -> InvalidConfigError:
    """Name the nearest of a closed set of words; only then is what was written shown."""
    written = next(str(one["input"]) for one in error.errors() if one["loc"] == first["loc"])
    choices = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(written, choices, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else ""
    return InvalidConfigError(f"{place}: `{written}` is not one of {', '.join(choices)}", hint=hint)


def _without_tag(where: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop pydantic's union tag that follows `credential`; it is not a key of the file."""
    if "credential" not in where:
        return where
    after = where.index("credential") + 1
    return where[:after] + where[after + 1 :]


def _fields_at(where: tuple[int | str, ...]) -> set[str]:
    """Return the keys allowed at a place of the document."""
    model: Any = Settings
    for part in where:
        if isinstance(part, int):
            continue
        model = {
            **{name: field.annotation for name, field in model.model_fields.items()},
            "upstream": UpstreamSettings,
            "issuer": IssuerSettings,
            "introspection": IntrospectionSettings,
            "provisioning": ProvisioningSettings,
            "spiffe": SpiffeSettings,
            "directory_source": DirectorySourceSettings,
            "inactive": Inactive,
            "credential": HeaderCredential,
            "s3": S3Credential,
            "mtls": MtlsCredential,
            "tls": TlsSettings,
        }.get(part, model)
    return set(model.model_fields)


def _line_of(where: tuple[int | str, ...], text: str) -> int:
    """Return the 1-based line a key of the document stands on; the deepest part that is found."""
    best = 0
    for number, place in _places(text):
        if place == where[: len(place)] and place:
            best = number
            if place == where:
                return number
    return best


def _places(text: str) -> Iterator[tuple[int, tuple[int | str, ...]]]:
    """Yield (line, path) of every table header and key, arrays of tables counted."""
    table: tuple[int | str, ...] = ()
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            counts[header[1]] = counts.get(header[1], -1) + 1
            table = (header[1], counts[header[1]])
            yield number, table
        elif header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            table = tuple(header[1].split("."))
            yield number, table
        else:
            for key in re.finditer(r"(?:^\s*|[{,]\s*)([\w-]+)\s*=", line):
                yield number, (*table, key[1])
