"""Read from a domain schema which attributes people and assets may have, so that files can state them.

Only entity declarations are read, and only for that; whether the schema is right is admission's to say.
"""

from __future__ import annotations

import re
from typing import Final

from doorward.directory.vocabulary import ASSETS, PACKAGED, PRINCIPALS, Attribute, Kind, Vocabulary

# Comments and strings first, so that neither is mistaken for the other.
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*|\S')
_TYPES: Final = {
    "Bool": Attribute(Kind.BOOL),
    "Boolean": Attribute(Kind.BOOL),
    "Long": Attribute(Kind.LONG),
    "String": Attribute(Kind.STRING),
    "Set<String>": Attribute(Kind.STRINGS),
    "datetime": Attribute(Kind.DATETIME),
}
_OPENING, _CLOSING = frozenset("{<[("), frozenset("}>])")


def vocabulary_of(schema: str) -> Vocabulary:
    """Return the packaged attributes and those a schema adds, where a file can state their type.

    Attributes of the packaged schema keep their bounds; those that the schema leaves out are gone.
    """
    words = [word for word in _TOKEN.findall(schema) if not word.startswith("//")]
    declared = _entities(words)
    aliases = _aliases(words)
    return {
        kind: {
            name: attribute
            for name, text in declared[kind].items()
            if (attribute := PACKAGED[kind].get(name) or _attribute(text, aliases, declared)) is not None
        }
        if kind in declared
        else PACKAGED[kind]
        for kind in (*PRINCIPALS, *ASSETS)
    }


def _attribute(text: str, aliases: dict[str, str], entities: dict[str, dict[str, str]]) -> Attribute | None:
    plain = aliases.get(text, text)
    if plain in _TYPES:
        return _TYPES[plain]
    kind = plain.rpartition("::")[2]
    return Attribute(Kind.ENTITY, entity=kind) if kind in entities else None


def _aliases(words: list[str]) -> dict[str, str]:
    """Return `type Name = Other;` by name."""
    named = zip(words, words[1:], words[2:], words[3:], strict=False)
    return {name: other for first, name, sign, other in named if (first, sign) == ("type", "=")}


def _entities(words: list[str]) -> dict[str, dict[str, str]]:
    """Return the attributes of each declared kind as text: kind -> attribute -> type."""
    found: dict[str, dict[str, str]] = {}
    for start in (n for n, word in enumerate(words) if word == "entity"):
        end = start + 1
        names = []
        while end < len(words) and words[end] not in {"in", "enum", "{", "=", "tags", ";"}:
            names.append(words[end])
            end += 1
        while end < len(words) and words[end] not in {"{", ";"}:
            end += 1
        attributes = _attributes(words[end + 1 :]) if end < len(words) and words[end] == "{" else {}
        found |= {name: attributes for name in names if name != ","}
    return found


def _attributes(words: list[str]) -> dict[str, str]:
    """Read `name?: Type, …` up to the closing brace."""
    found: dict[str, str] = {}
    depth, name, parts = 0, "", [""]
    for word in words:
        if depth == 0 and word in {",", "}"}:
            if name:
                found[name] = "".join(parts)
            name, parts = "", []
            if word == "}":
                break
        elif depth == 0 and word == ":" and not name:
            name, parts = "".join(parts).rstrip("?").strip('"'), []
        else:
            depth += (word in _OPENING) - (word in _CLOSING)
            parts.append(word)
    return found
