"""Policy tests: `*_test.yaml`, named entities, requests and what is expected of each.

The runner asks through a port, so the same cases run in `doorward test`, in CI and against a draft.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from doorward.core.decision import Decision
from doorward.core.errors import InvalidConfigError
from doorward.directory.org import offline_snapshot, parse
from doorward.directory.snapshot import Snapshot
from doorward.directory.yaml_lines import Reader, nearest

_FILE = ("entities", "tests")
_CASE = ("name", "request", "expect")
_REQUEST = (
    "principal", "action", "resource", "context", "device", "zone", "purpose", "mfa_age", "at",
)  # fmt: skip
_EXPECT = ("decision", "determining", "obligations")

Ask = Callable[[Mapping[str, Any], Snapshot | None], Decision]


class Expectation(msgspec.Struct, frozen=True):
    """State what a decision must be; what is None is not looked at."""

    decision: str
    determining: tuple[str, ...] | None = None
    obligations: tuple[dict[str, Any], ...] | None = None

    def unmet(self, decision: Decision) -> Iterator[str]:
        """Yield a sentence for each way in which the decision differs."""
        if decision.effect != self.decision:
            yield f"expected {self.decision}, got {decision.effect.value}"
        if self.determining is not None and sorted(self.determining) != sorted(decision.determining):
            yield f"expected determining {_list(self.determining)}, got {_list(decision.determining)}"
        if self.obligations is not None:
            got = [msgspec.to_builtins(obligation) for obligation in decision.obligations]
            if not _match(list(self.obligations), got):
                yield f"expected obligations {_text(list(self.obligations))}, got {_text(got)}"


class Case(msgspec.Struct, frozen=True):
    """One test: its name and place, the request in words, the expectation, its file's entities."""

    name: str
    place: str
    request: dict[str, Any]
    expect: Expectation
    entities: Snapshot | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of one case; no failures means it passed."""

    name: str
    place: str
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Return whether everything was as expected."""
        return not self.failures


def run(cases: Iterator[Case] | list[Case], ask: Ask) -> Iterator[Outcome]:
    """Ask every case and compare; errors the decision met are part of a failure's text."""
    for case in cases:
        decision = ask(case.request, case.entities)
        failures = [*case.expect.unmet(decision)]
        if failures:
            failures += [f"error {error}" for error in decision.errors]
        yield Outcome(case.name, case.place, tuple(failures))


def read(file: Path) -> list[Case]:
    """Read one test file; raise InvalidConfigError with file:line for what is not understood."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise InvalidConfigError(f"{file}:1: the file cannot be read as text") from reason
    return [*_Cases(str(file)).read(text)]


class _Cases(Reader):
    """Reads one file; every error names the line."""

    def read(self, text: str) -> Iterator[Case]:
        """Yield the cases in order."""
        root = self.root(text)
        if root is None:
            raise InvalidConfigError(f"{self.source}:1: the file holds no tests")
        parts = self._parts(root, "the file", _FILE)
        entities = self._entities(parts["entities"], text) if "entities" in parts else None
        if "tests" not in parts:
            self.fail(root, "the file holds no `tests`", "Write `tests: [{name, request, expect}]`.")
        for node in self.items(parts["tests"], "`tests`"):
            yield self._case(node, entities)

    def _parts(self, node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, yaml.Node]:
        found: dict[str, yaml.Node] = {}
        for key, key_node, value in self.pairs(node, what):
            if key not in allowed:
                self.unknown(key_node, key, what=what, allowed=allowed)
            found[key] = value
        return found

    def _entities(self, node: yaml.Node, text: str) -> Snapshot:
        """Read the file's own people and assets, in the org file's words, at their own lines."""
        start, end = node.start_mark, node.end_mark
        block = " " * start.column + text[start.index : end.index]
        return offline_snapshot(parse("\n" * start.line + textwrap.dedent(block), self.source))

    def _case(self, node: yaml.Node, entities: Snapshot | None) -> Case:
        parts = self._parts(node, "a test", _CASE)
        for key in _CASE:
            if key not in parts:
                self.fail(node, f"a test needs `{key}`")
        request = self._parts(parts["request"], "a request", _REQUEST)
        for key in ("principal", "action", "resource"):
            if key not in request:
                self.fail(parts["request"], f"a request needs `{key}`")
        return Case(
            name=self.name(parts["name"], "a test's name"),
            place=self.place(node),
            request={key: self._plain(value, key) for key, value in request.items()},
            expect=self._expect(parts["expect"]),
            entities=entities,
        )

    def _expect(self, node: yaml.Node) -> Expectation:
        parts = self._parts(node, "an expectation", _EXPECT)
        if "decision" not in parts:
            self.fail(node, "an expectation needs `decision`", "Write `decision: allow` or `deny`.")
        decision = self.text(parts["decision"], "`decision`")
        if decision not in {"allow", "deny"}:
            self.fail(parts["decision"], f"`{decision}` is no decision", nearest(decision, ("allow", "deny")))
        determining = obligations = None
        if "determining" in parts:
            items = self.items(parts["determining"], "`determining`")
            determining = tuple(self.name(item, "a policy id") for item in items)
        if "obligations" in parts:
            items = self.items(parts["obligations"], "`obligations`")
            obligations = tuple(self._obligation(item) for item in items)
        return Expectation(decision, determining, obligations)

    def _obligation(self, node: yaml.Node) -> dict[str, Any]:
        found = {key: self._plain(value, key) for key, _, value in self.pairs(node, "an obligation")}
        if "type" not in found:
            self.fail(node, "an obligation needs `type`", "Write { type: mask, fields: [email] }.")
        return found

    def _plain(self, node: yaml.Node, what: str) -> Any:
        """Return the JSON a node stands for."""
        if isinstance(node, yaml.MappingNode):
            return {key: self._plain(value, key) for key, _, value in self.pairs(node, f"`{what}`")}
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, what) for item in node.value]
        match str(node.tag).rpartition(":")[2]:
            case "bool":
                return self.boolean(node, f"`{what}`")
            case "int":
                return self.whole(node, f"`{what}`", None)
        return self.text(node, f"`{what}`")


def _match(expected: list[dict[str, Any]], got: list[dict[str, Any]]) -> bool:
    """Return whether each expected obligation is a part of one of the given, one to one."""
    if len(expected) != len(got):
        return False
    left = list(got)
    for wanted in expected:
        found = next((item for item in left if wanted.items() <= _comparable(item).items()), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _comparable(item: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in item.items()}


def _list(ids: tuple[str, ...]) -> str:
    return f"[{', '.join(sorted(ids))}]"


def _text(obligations: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(obligations).decode()
