"""The deciding process's end of the shadow check: send samples, hear findings; no request ever waits here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from doorward import peer
from doorward.core.errors import UnavailableError
from doorward.core.shadow import Finding, Measure, ShadowMessage
from doorward.decisions import findings
from doorward.decisions.watching import Samples

SOCKET: Final = "samples.sock"
# Encoding is on the event loop: a few at a time, and requests go between.
_AT_ONCE: Final = 4
_LONGEST_LINE: Final = 16 << 20
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_decoder = msgspec.json.Decoder(ShadowMessage)
_log = structlog.get_logger()


class ShadowLink:
    """Keep a connection to the shadow check and put what it finds into force."""

    def __init__(
        self, data: Path, samples: Samples, restrict: Callable[[Mapping[str, Measure]], None]
    ) -> None:
        """Take what stands on file into force at once; raise UnavailableError for a damaged file.

        `restrict` puts measures into force; it is called on the event loop.
        """
        self._path, self._samples, self._restrict = data / SOCKET, samples, restrict
        self._more = asyncio.Event()
        self._connected = False
        try:
            self._findings = findings.read(data)
        except ValueError as reason:
            raise UnavailableError(
                f"the findings of the shadow check cannot be read: {reason}",
                hint="Without them wrong code could rule again: restore the file from a backup.",
            ) from reason
        restrict(findings.measures(self._findings))

    @property
    def connected(self) -> bool:
        """Return whether the shadow check hears us."""
        return self._connected

    @property
    def found(self) -> tuple[Finding, ...]:
        """Return every finding in force."""
        return self._findings

    def report(self) -> dict[str, Any]:
        """Return the state for /readyz: names of slices and records, nobody's."""
        return {
            "connected": self._connected,
            "sampled": self._samples.taken,
            "dropped": self._samples.dropped,
            "findings": [
                {"slice": one.slice, "measure": one.measure.value, "record": one.record}
                for one in self._findings
            ],
        }

    def numbers(self) -> Iterator[tuple[str, str, Callable[[], float]]]:
        """Yield what to show for /metrics: name, text, and the live value."""
        yield "doorward_shadow_sampled", "Decisions taken for the shadow check.", lambda: self._samples.taken
        yield (
            "doorward_shadow_dropped",
            "Decisions taken for the shadow check that found no room.",
            lambda: self._samples.dropped,
        )
        yield "doorward_shadow_connected", "Whether the shadow check hears us.", lambda: self._connected
        yield "doorward_shadow_findings", "Slices found wrong.", lambda: len(self._findings)

    async def run(self) -> None:
        """Send samples and hear findings until cancelled; connect again for ever. Returns if it is off."""
        if not self._samples.on:
            return
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._more.set)

        self._samples.on_more = wake
        wait = _FIRST_WAIT
        try:
            while True:
                try:
                    await self._follow()
                except (OSError, EOFError, ValueError, UnavailableError) as reason:
                    # No fault of ours, and the ordinary end of an installation; /readyz and a metric tell.
                    if self._connected:
                        _log.info("shadow_check_lost", reason=str(reason) or type(reason).__name__)
                wait = _FIRST_WAIT if self._connected else min(wait * 2, _LONGEST_WAIT)
                self._connected = False
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads reconnects
        finally:
            self._samples.on_more = None

    async def _follow(self) -> None:
        with peer.socket_address(self._path) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=_LONGEST_LINE)
        tasks: list[asyncio.Task[None]] = []
        try:
            uid = peer.uid_of(writer.get_extra_info("socket"))
            if uid != os.geteuid():
                raise UnavailableError(f"the shadow check runs as uid {uid}, not as our own")
            tasks = [asyncio.create_task(self._hear(reader)), asyncio.create_task(self._send(writer))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.transport.abort()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = _decoder.decode(await reader.readuntil(b"\n"))
            self._connected = True
            if message.findings is not None:
                self._take(message.findings)

    def _take(self, told: tuple[Finding, ...]) -> None:
        fresh = [one for one in told if one not in self._findings]
        self._findings = (*self._findings, *fresh)
        self._restrict(findings.measures(told))
        for one in fresh:
            _log.critical("slice_restricted", slice=one.slice, measure=one.measure.value, record=one.record)

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while samples := self._samples.drain(_AT_ONCE):
                line = msgspec.json.encode(ShadowMessage(samples=samples)) + b"\n"
                try:
                    writer.write(line)
                    await writer.drain()
                except BaseException:
                    self._samples.lose(len(samples))
                    raise
                await asyncio.sleep(0)
