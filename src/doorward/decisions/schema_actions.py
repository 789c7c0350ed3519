"""Read from a domain schema which principals may be asked to do what to which resources.

Only action declarations are read, and only to know what to ask; whether a request fits the schema is
the evaluator's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from doorward.core.model import EntityUid

# Comments and strings first, so that neither is mistaken for the other.
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*|\S')
_OPENING, _CLOSING = frozenset("{[<("), frozenset("}]>)")


class Applies(msgspec.Struct, frozen=True):
    """Name the full types an action speaks of."""

    principals: frozenset[str]
    resources: frozenset[str]


@lru_cache(maxsize=8)
def groups_of(schema: str) -> Mapping[EntityUid, frozenset[EntityUid]]:
    """Return the groups of every declared action, direct and indirect."""
    words = [word for word in _TOKEN.findall(schema) if not word.startswith("//")]
    direct: dict[EntityUid, frozenset[EntityUid]] = {}
    for namespace, rest in _declared(words):
        names, groups = _names(rest), _groups(rest, namespace)
        direct |= {EntityUid(f"{namespace}Action", name): groups for name in names}
    return {action: _closed(action, direct) for action in direct}


def _closed(action: EntityUid, direct: Mapping[EntityUid, frozenset[EntityUid]]) -> frozenset[EntityUid]:
    found: set[EntityUid] = set()
    waiting = [action]
    while waiting:
        for group in direct.get(waiting.pop(), frozenset()):
            if group not in found:
                found.add(group)
                waiting.append(group)
    return frozenset(found)


def _groups(words: Sequence[str], namespace: str) -> frozenset[EntityUid]:
    """Read `in ["use", Other::Action::"x"]` of one declaration."""
    end = next(at for at, word in enumerate(words) if word in {"appliesTo", ";", "attributes"})
    head = list(words[:end])
    if "in" not in head:
        return frozenset()
    found: set[EntityUid] = set()
    for at, word in enumerate(head[head.index("in") + 1 :], start=head.index("in") + 1):
        full = head[at - 2 : at] == [":", ":"]
        if word.startswith('"'):
            kind = head[at - 3] if full else f"{namespace}Action"
            found.add(EntityUid(kind, word.strip('"')))
        elif word not in {"[", "]", ",", ":"} and head[at + 1 : at + 2] != [":"]:
            found.add(EntityUid(f"{namespace}Action", word))
    return frozenset(found)


@lru_cache(maxsize=8)
def actions_of(schema: str) -> Mapping[EntityUid, Applies]:
    """Return every action that applies to something, in the schema's order."""
    words = [word for word in _TOKEN.findall(schema) if not word.startswith("//")]
    return dict(_actions(words))


def _actions(words: Sequence[str]) -> Iterator[tuple[EntityUid, Applies]]:
    for namespace, rest in _declared(words):
        yield from _one(rest, namespace)


def _declared(words: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the namespace of each action declaration and the words that follow `action`."""
    namespace, depth = "", 0
    for at, word in enumerate(words):
        if word == "namespace" and depth == 0:
            namespace = words[at + 1] + "::"
        depth += (word in _OPENING) - (word in _CLOSING)
        if depth == 0 and word == "}":
            namespace = ""
        begins = word == "action" and words[at - 1 : at] != [":"] and words[at + 1 : at + 2] != [":"]
        if begins and depth == (1 if namespace else 0):
            yield namespace, words[at + 1 :]


def _names(words: Sequence[str]) -> list[str]:
    end = next(at for at, word in enumerate(words) if word in {"in", "appliesTo", ";", "attributes"})
    return [word.strip('"') for word in words[:end] if word != ","]


def _one(words: Sequence[str], namespace: str) -> Iterator[tuple[EntityUid, Applies]]:
    names, at = _names(words), 0
    while words[at] not in {"appliesTo", ";"}:
        at += 1
    if words[at] == ";":
        return
    applies = Applies(_listed(words[at:], "principal", namespace), _listed(words[at:], "resource", namespace))
    for name in names:
        yield EntityUid(f"{namespace}Action", name), applies


def _listed(words: Sequence[str], key: str, namespace: str) -> frozenset[str]:
    """Read `key: Type` or `key: [Type, Type]` of one `appliesTo`."""
    at, depth = 1, 0
    while at < len(words):
        depth += (words[at] in _OPENING) - (words[at] in _CLOSING)
        if depth == 0:
            return frozenset()
        if depth == 1 and words[at] == key and words[at + 1] == ":":
            break
        at += 1
    at += 2
    found = [words[at]]
    if words[at] == "[":
        found = [word for word in words[at + 1 : at + 1 + words[at + 1 :].index("]")] if word != ","]
    return frozenset(name if "::" in name else namespace + name for name in found)
