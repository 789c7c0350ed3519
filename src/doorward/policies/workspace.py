"""The policy directory: read as one, watched, and swapped whole only when all of it is admitted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from pathlib import Path

import structlog

from doorward.cedar.admission import SCHEMA, PolicySource, admit
from doorward.cedar.caps import MAX_FILE
from doorward.core.errors import DoorwardError, InvalidPolicyError
from doorward.core.feed import Bundle

GUARDRAILS = "guardrails"
_LOG = structlog.get_logger()
_DEBOUNCE_MS = 200

_LOOK_AGAIN_MS = 2000

Stamps = tuple[tuple[str, int, int, int], ...] | None
OnBundle = Callable[[Bundle], Awaitable[None] | None]
OnError = Callable[[DoorwardError], Awaitable[None] | None]


def packaged_schema() -> str:
    """Return the domain schema that comes with Doorward."""
    return resources.files("doorward.policies").joinpath(SCHEMA).read_text("utf-8")


class Workspace:
    """One directory: `*.cedar`, `guardrails/*.cedar`, `*_test.yaml`, perhaps `schema.cedarschema`."""

    def __init__(self, path: Path) -> None:
        """Name the directory; nothing is read yet."""
        self.path = path
        self.refused = False  # whether the files hold a set that was refused, and an earlier one rules
        self._digest = ""

    def load(self) -> Bundle:
        """Return the admitted bundle; raise InvalidPolicyError with file:line:col of every problem."""
        bundle = admit(self.sources(), self.schema())
        self._digest = bundle.digest
        return bundle

    def sources(self) -> list[PolicySource]:
        """Read the policy files, sorted by name; raise InvalidPolicyError for one that cannot be read."""
        if not self.path.is_dir():
            raise InvalidPolicyError(
                f"{self.path} is not a directory of policies",
                hint="Name the directory, or make one with `doorward init`.",
            )
        return [
            PolicySource(self._name(file), _read(file, self._name(file)), guardrail)
            for file, guardrail in self._files()
        ]

    def schema(self) -> str:
        """Return the directory's own schema, else the packaged one."""
        own = self.path / SCHEMA
        return _read(own, self._name(own)) if own.exists() else packaged_schema()

    def tests(self) -> list[Path]:
        """Return the `*_test.yaml` files, sorted by name."""
        return sorted(self.path.glob("*_test.yaml"))

    async def watch(
        self, on_bundle: OnBundle, on_error: OnError, *, stop: asyncio.Event | None = None
    ) -> None:
        """Load again at every change until cancelled (or `stop`): a good set goes to `on_bundle`.

        A set that is refused, by us or by `on_bundle` raising a DoorwardError, goes to `on_error`, and
        what ruled before goes on ruling. Files written
        one after the other are read together; a set equal to the present one is not announced.
        """
        from watchfiles import awatch  # noqa: PLC0415 -- who only loads a directory does without it

        seen = await self._reload(on_bundle, on_error)  # what changed between `load` and here
        while stop is None or not stop.is_set():
            try:
                async for changes in awatch(
                    self.path,
                    watch_filter=None,
                    debounce=_DEBOUNCE_MS,
                    rust_timeout=_LOOK_AGAIN_MS,
                    yield_on_timeout=True,
                    stop_event=stop,
                ):
                    # Links that point elsewhere now raise no event: so we also look at the files.
                    if changes or self._stamps() != seen:
                        seen = await self._reload(on_bundle, on_error)
            except FileNotFoundError:
                if self._stamps() != seen:
                    seen = await self._reload(on_bundle, on_error)
                await asyncio.sleep(_LOOK_AGAIN_MS / 1000)

    async def _reload(self, on_bundle: OnBundle, on_error: OnError) -> Stamps:
        """Load and announce; return how the files looked before they were read."""
        before, stamps = self._digest, self._stamps()
        try:
            bundle = await asyncio.to_thread(self.load)
            if bundle.digest != before:
                _LOG.info("policies_changed", bundle=bundle.digest, policies=len(bundle.policies))
                await _call(on_bundle, bundle)
            self.refused = False
        except DoorwardError as error:
            _LOG.warning("policies_refused", path=str(self.path), error=error.message)
            self.refused = True
            # Going back to the set that still rules must be announced: it ends the error.
            self._digest = ""
            await _call(on_error, error)
        return stamps

    def _stamps(self) -> Stamps:
        """Return what tells whether a file was changed or replaced; None when nothing can be read."""
        try:
            files = [*sorted(self.path.rglob("*.cedar")), self.path / SCHEMA]
            looks = ((file, file.stat()) for file in files if file.exists())
            return tuple((str(f), look.st_ino, look.st_size, look.st_mtime_ns) for f, look in looks)
        except OSError:
            return None

    def _files(self) -> Iterator[tuple[Path, bool]]:
        for file in sorted(self.path.rglob("*.cedar")):
            inside = file.relative_to(self.path).parts[:-1]
            if any(part.startswith(".") for part in inside):
                continue
            if inside not in {(), (GUARDRAILS,)}:
                raise InvalidPolicyError(
                    f"{self._name(file)}:1:1: policies stand in the directory itself or in {GUARDRAILS}/",
                    hint="Move the file there, or out of the directory: a policy nobody reads is a trap.",
                )
            yield file, bool(inside)

    def _name(self, file: Path) -> str:
        return str(self.path / file.relative_to(self.path))


async def _call(callback: Callable[..., Awaitable[None] | None], argument: object) -> None:
    result = callback(argument)
    if result is not None:
        await result


def _read(file: Path, name: str) -> str:
    try:
        if file.stat().st_size > MAX_FILE:
            raise InvalidPolicyError(
                f"{name}:1:1: the file holds more than {MAX_FILE:,} bytes",
                hint="Split it into several files.",
            )
        content = file.read_bytes()
    except OSError as reason:
        raise InvalidPolicyError(
            f"{name}:1:1: the file cannot be read ({reason.strerror})", hint="See its permissions."
        ) from reason
    try:
        return content.decode()
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        raise InvalidPolicyError(
            f"{name}:{line}:1: the file is not UTF-8", hint="Save it as UTF-8 text."
        ) from reason
