"""YAML with one reading: every value keeps its line, and what YAML reads in surprising ways is refused.

No aliases (a few lines can expand to gigabytes), no tags, no second document, no duplicate keys, no
`yes`/`no` as booleans, no octal or base-60 numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from doorward.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 12
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_BOOLEANS: Final = {"true": True, "false": False}

Pair = tuple[str, yaml.Node, yaml.Node]


class Reader:
    """Read values out of one file; every error names the file and line."""

    def __init__(self, source: str) -> None:
        """Name the file for messages."""
        self.source = source

    def place(self, node: yaml.Node) -> str:
        """Return `file:line` of a node."""
        return f"{self.source}:{node.start_mark.line + 1}"

    def fail(self, node: yaml.Node, message: str, hint: str = "") -> NoReturn:
        """Raise InvalidConfigError at a node."""
        raise InvalidConfigError(f"{self.place(node)}: {message}", hint=hint)

    def root(self, text: str) -> yaml.Node | None:
        """Return the document's root, None for an empty one; raise InvalidConfigError."""
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise InvalidConfigError(
                f"{self.source} is larger than {MAX_BYTES // 1024**2} MB", hint="Split it into several files."
            )
        try:
            self._screen(text)
            root: yaml.Node | None = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            # The parser may put the end of the text on a line of its own.
            line = 1 if mark is None else min(mark.line, text.count("\n")) + 1
            raise InvalidConfigError(f"{self.source}:{line}: {error.problem or 'not YAML'}") from error
        except (yaml.YAMLError, UnicodeError) as error:
            raise InvalidConfigError(f"{self.source}:1: not readable as YAML text") from error
        return root

    def _screen(self, text: str) -> None:
        """Refuse depth and aliases on the flat event stream, before anything recursive sees the text."""
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                self._refuse(event, "anchors and aliases are not read", "Write the value out.")
            if getattr(event, "tag", None) is not None:
                self._refuse(event, "tags (`!name`) are not read", "Leave the tag out.")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    self._refuse(event, f"nested deeper than {MAX_DEPTH} levels", "Flatten it.")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _refuse(self, event: yaml.Event, message: str, hint: str) -> NoReturn:
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        raise InvalidConfigError(f"{self.source}:{line}: {message}", hint=hint)

    def pairs(self, node: yaml.Node, what: str) -> Iterator[Pair]:
        """Yield (key, key node, value node) of a mapping; nothing at all counts as an empty one."""
        if _is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f"{what} must be a mapping (`name: value`), not {_said(node)}")
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                self.fail(key, f"a key of {what} must be a name")
            if key.value in seen:
                first = self.place(seen[key.value])
                self.fail(key, f"`{key.value}` stands twice in {what}", f"The first is at {first}.")
            seen[key.value] = key
            yield key.value, key, value

    def unknown(self, node: yaml.Node, key: str, *, what: str, allowed: Iterable[str]) -> NoReturn:
        """Raise for a key that is not known, with the nearest right one."""
        self.fail(node, f"{what} has no key `{key}`", nearest(key, allowed))

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """Return a list's nodes."""
        if not isinstance(node, yaml.SequenceNode):
            self.fail(node, f"{what} must be a list, not {_said(node)}", "Write [one, two].")
        nodes: list[yaml.Node] = node.value
        return nodes

    def name(self, node: yaml.Node, what: str) -> str:
        """Return a name: a scalar's own text, so that `no` and `007` stay what they are."""
        if not isinstance(node, yaml.ScalarNode) or _is_null(node) or not node.value:
            self.fail(node, f"{what} must be a name, not {_said(node)}")
        return str(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        """Return text; a number or boolean must be quoted to be text."""
        if not isinstance(node, yaml.ScalarNode) or _tag(node) not in {"str", "timestamp"}:
            self.fail(node, f"{what} must be text, not {_said(node)}", _quoting(node))
        return str(node.value)

    def boolean(self, node: yaml.Node, what: str) -> bool:
        """Return a boolean, written `true` or `false`."""
        plain = isinstance(node, yaml.ScalarNode) and _tag(node) == "bool"
        if not plain or str(node.value).lower() not in _BOOLEANS:
            self.fail(node, f"{what} must be true or false, not {_said(node)}")
        return _BOOLEANS[str(node.value).lower()]

    def whole(self, node: yaml.Node, what: str, bounds: tuple[int, int] | None) -> int:
        """Return a whole number within `bounds` (inclusive)."""
        plain = isinstance(node, yaml.ScalarNode) and _tag(node) == "int"
        if not plain or _WHOLE.fullmatch(str(node.value)) is None:
            self.fail(node, f"{what} must be a whole number, not {_said(node)}")
        number = int(node.value)
        if bounds is not None and not bounds[0] <= number <= bounds[1]:
            self.fail(node, f"{what} must lie between {bounds[0]} and {bounds[1]}, not {number}")
        return number

    def moment(self, node: yaml.Node, what: str) -> datetime:
        """Return a time in UTC to the millisecond (Cedar's); a date alone is its first moment in UTC."""
        text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(node, f"{what} must be a date or time, not {_said(node)}", "Write 2027-01-31.")
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
        if len(text) > len("2027-01-31"):
            self.fail(node, f"{what} names no time zone", f"Write {text}Z for UTC.")
        return moment.replace(tzinfo=UTC)


def nearest(key: str, allowed: Iterable[str]) -> str:
    """Return a hint: the nearest right word, else all of them."""
    words = sorted(allowed)
    close = get_close_matches(key, words, n=1, cutoff=0.6) or get_close_matches(
        key.lower(), [word.lower() for word in words], n=1, cutoff=0.6
    )
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Known are: {', '.join(words)}." if words else ""


def _tag(node: yaml.Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and _tag(node) == "null"


def _said(node: yaml.Node) -> str:
    """Say what stands there, shortened and printable."""
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if _is_null(node) else f"`{ascii(str(node.value)[:60])[1:-1]}`"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _quoting(node: Any) -> str:
    return f'Quote it: "{node.value}".' if isinstance(node, yaml.ScalarNode) and not _is_null(node) else ""
