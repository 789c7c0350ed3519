"""What several gateways say of themselves, as one: ready if all that run are, numbers added up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from doorward.app.admin import JSON, NOT_FOUND, TEXT, Report, fetched

_OK, _UNAVAILABLE = 200, 503
_TYPE = re.compile(r"# TYPE (\S+) (\S+)")
_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)")


class Workers:
    """Ask every gateway that runs, and answer for all."""

    def __init__(self, data: Path, names: Callable[[], Iterable[str]]) -> None:
        """Take where their sockets lie and who runs now."""
        self._data, self._names = data, names

    async def answer(self, path: str) -> Report:
        """Return the answer to GET `path`."""
        if path not in {"/healthz", "/readyz", "/metrics"}:
            return NOT_FOUND
        names = tuple(self._names())
        answers = await asyncio.gather(*(fetched(self._data / f"{name}.sock", path) for name in names))
        told = dict(zip(names, answers, strict=True))
        match path:
            case "/readyz":
                return _readiness(told)
            case "/metrics":
                texts = {name: body.decode("utf-8", "replace") for name, (_, body) in told.items()}
                return _OK, TEXT, merged(texts).encode()
        alive = bool(told) and all(status == _OK for status, _ in told.values())
        return (_OK, TEXT, b"ok\n") if alive else (_UNAVAILABLE, TEXT, b"a gateway does not answer\n")


def _readiness(told: dict[str, tuple[int, bytes]]) -> Report:
    workers: dict[str, dict[str, Any]] = {}
    for name, (status, body) in told.items():
        try:
            workers[name] = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError:
            workers[name] = {"reason": "it does not answer"}
        workers[name]["ready"] = status == _OK
    ready = bool(workers) and all(each["ready"] for each in workers.values())
    # What all say alike is said once, at the top; the first that is not ready speaks for all.
    spoken = next((each for each in workers.values() if not each["ready"]), next(iter(workers.values()), {}))
    report = {**spoken, "ready": ready, "workers": workers}
    return (_OK if ready else _UNAVAILABLE), JSON, msgspec.json.encode(report)


def merged(texts: dict[str, str]) -> str:
    """Return Prometheus text: counters and histograms added up, gauges labelled with their gateway."""
    families: dict[str, list[str]] = {}
    sums: dict[str, dict[str, float]] = {}
    for worker, text in texts.items():
        family, kind = "", ""
        for line in text.splitlines():
            if line.startswith("#"):
                found = _TYPE.match(line)
                family, kind = (found[1], found[2]) if found else (family, kind)
                head = families.setdefault(line.split(" ")[2], [])
                if line not in head:
                    head.append(line)
            elif (sample := _SAMPLE.fullmatch(line)) is not None:
                _add(sums.setdefault(family, {}), sample, worker if kind == "gauge" else "")
    out: list[str] = []
    for family, head in families.items():
        out += head
        out += [f"{name} {_number(value)}" for name, value in sums.get(family, {}).items()]
    return "\n".join(out) + "\n"


def _add(family: dict[str, float], sample: re.Match[str], worker: str) -> None:
    name, labels, value = sample.groups()
    if name.endswith("_created"):
        worker = ""
    labels = ",".join(filter(None, (f'worker="{worker}"' if worker else "", labels or "")))
    key = f"{name}{{{labels}}}" if labels else name
    if name.endswith("_created"):
        family[key] = min(family.get(key, float("inf")), float(value))
    else:
        family[key] = family.get(key, 0.0) + float(value)


def _number(value: float) -> str:
    return repr(value)
