"""`doorward doctor`: doors left open, wrong settings, things that stop working soon."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from doorward.app.geography import Geography
from doorward.app.probe import Door, listens_beyond_loopback, probe
from doorward.core.errors import DoorwardError
from doorward.policies.workspace import Workspace
from doorward.settings import Settings, UpstreamSettings


class Severity(Enum):
    """Say how much a finding matters; a hole fails the examination."""

    OK = "ok"
    ADVICE = "advice"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Check:
    """State one thing that was looked at; `mend` says what to do about it."""

    name: str
    severity: Severity
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Check]:
    """Look at everything that can be seen from here, one finding at a time."""
    yield from _data(settings.data)
    yield from _policies(settings)
    yield from _listeners(settings)
    yield _location(settings)
    if not settings.upstream:
        yield Check(
            "upstreams", Severity.ADVICE, "none is configured", "`doorward protect KIND URL` adds one."
        )
    for upstream in settings.upstream:
        yield from _upstream(upstream)


def _data(data: Path) -> Iterator[Check]:
    if not data.exists():
        yield Check(
            "data directory", Severity.ADVICE, f"{data} does not exist yet", "`doorward up` makes it."
        )
        return
    if stat.S_IMODE(data.stat().st_mode) & 0o077:
        yield Check("data directory", Severity.HOLE, f"others may enter {data}", f"chmod 700 {data}")
    else:
        yield Check("data directory", Severity.OK, f"only you may enter {data}")
    loose = [
        file
        for folder in (data / "keys", data / "audit")
        if folder.is_dir()
        for file in folder.rglob("*")
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o077
    ]
    if loose:
        yield Check("keys and log", Severity.HOLE, f"others may read {loose[0]}", f"chmod 600 {loose[0]}")


def _policies(settings: Settings) -> Iterator[Check]:
    path = settings.resolve(settings.policies.path)
    try:
        bundle = Workspace(path).load()
    except DoorwardError as error:
        yield Check(
            "policies", Severity.HOLE, error.message, error.hint or f"`doorward check {path}` shows all."
        )
    else:
        yield Check(
            "policies", Severity.OK, f"{len(bundle.policies)} policies, {len(bundle.guardrails)} guardrails"
        )


def _listeners(settings: Settings) -> Iterator[Check]:
    if settings.gateway.tls is None:
        yield Check(
            "gateway TLS",
            Severity.ADVICE,
            "off: keys travel in the clear on this machine, and no device can prove itself",
            'Set tls = "auto" under [gateway].',
        )
    else:
        yield Check("gateway TLS", Severity.OK, "on")
    if settings.identity.test_minting:
        yield Check(
            "test minting",
            Severity.HOLE,
            "tokens may claim MFA and a device without proof",
            "Set test_minting = false under [identity] outside tests.",
        )


def _location(settings: Settings) -> Check:
    try:
        size = Geography(settings).size
    except DoorwardError as error:
        return Check("location", Severity.HOLE, error.message, error.hint)
    if size is not None:
        return Check(
            "location", Severity.OK, f"{size} networks are located by the geo file, and zones by theirs"
        )
    return Check(
        "location",
        Severity.ADVICE,
        "no geo file: only zones with a `country` or `at` are located, everywhere else is unknown",
        "Give zones country and at in org.yaml, or set geo under [network].",
    )


def _upstream(upstream: UpstreamSettings) -> Iterator[Check]:
    name = f"upstream {upstream.name}"
    finding = probe(upstream.kind, upstream.url)
    match finding.door:
        case Door.OPEN:
            yield Check(
                name,
                Severity.HOLE,
                f"open to anyone who reaches it: {finding.detail}",
                "Give it a secret of its own or a Unix socket, and let only the gateway know.",
            )
        case Door.CLOSED:
            yield Check(name, Severity.OK, finding.detail)
        case Door.UNREACHABLE:
            yield Check(name, Severity.ADVICE, finding.detail, "Start it, or correct its url.")
    if listens_beyond_loopback(upstream.url):
        yield Check(
            name,
            Severity.HOLE,
            "its port also answers on this machine's outside address, around the gateway",
            "Bind it to 127.0.0.1 or to a Unix socket.",
        )
