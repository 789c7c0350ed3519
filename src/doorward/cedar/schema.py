"""A Cedar schema as the engine needs it: entity types, actions with their groups, and request types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from doorward.cedar.tokens import Kind, Token, tokens
from doorward.cedar.types import PRIMITIVES, EntityType, Field, RecordType, SetType, Taker, Type
from doorward.core.model import EntityUid

_ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
_BUILT_IN = "__cedar::"
_NOTHING = RecordType({})


class EntityRule(msgspec.Struct, frozen=True):
    """What the schema says of one entity type; `above` are the types its ancestors may have."""

    type: EntityType
    attrs: RecordType
    above: frozenset[str]
    tags: Type | None
    take: Taker


class ActionRule(msgspec.Struct, frozen=True):
    """What the schema says of one action; `groups` are all actions above it."""

    uid: EntityUid
    groups: frozenset[EntityUid]
    principals: frozenset[str]
    resources: frozenset[str]
    context: RecordType


class Schema(msgspec.Struct, frozen=True):
    """A resolved schema."""

    entities: Mapping[str, EntityRule]
    actions: Mapping[EntityUid, ActionRule]

    @property
    def holding(self) -> frozenset[str]:
        """Return the types of entities that others may lie in."""
        return _holding(tuple(rule.above for rule in self.entities.values()))

    @classmethod
    def of(cls, text: str) -> Schema:
        """Read Cedar's schema syntax; raise ValueError for what is not well-formed."""
        return _read(text)


@lru_cache(maxsize=8)
def _read(text: str) -> Schema:
    return _Resolver(_Parser(text).declarations()).schema()


@lru_cache(maxsize=16)
def _holding(above: tuple[frozenset[str], ...]) -> frozenset[str]:
    return frozenset[str]().union(*above)


class _Declared(msgspec.Struct):
    """One declaration as written: names unresolved, in the namespace it stands in."""

    what: str
    namespace: str
    name: str
    within: tuple[Any, ...] = ()
    body: Any = None
    tags: Any = None
    names: frozenset[str] | None = None
    principals: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()


class _Parser:
    """Recursive descent over Cedar's own grammar of schemas."""

    def __init__(self, text: str) -> None:
        self._tokens = list(tokens(text))
        self._at = 0

    def declarations(self) -> Iterator[_Declared]:
        while self._at < len(self._tokens):
            self._annotations()
            if self._take("namespace"):
                name = self._path()
                self._need("{")
                while not self._take("}"):
                    yield from self._declaration(name)
            else:
                yield from self._declaration("")

    def _declaration(self, namespace: str) -> Iterator[_Declared]:
        self._annotations()
        word = self._next().text
        match word:
            case "entity":
                yield from self._entity(namespace)
            case "action":
                yield from self._action(namespace)
            case "type":
                name = self._next().text
                self._need("=")
                yield _Declared("type", namespace, name, body=self._type())
                self._need(";")
            case _:
                raise ValueError(f"`{word}` cannot stand here in a schema")

    def _entity(self, namespace: str) -> Iterator[_Declared]:
        names = [self._next().text]
        while self._take(","):
            names.append(self._next().text)
        found = _Declared("entity", namespace, "")
        if self._take("enum"):
            found.names = frozenset(self._list(self._name))
        else:
            if self._take("in"):
                found.within = self._types()
            self._take("=")
            if self._peek() == "{":
                found.body = self._type()
            if self._take("tags"):
                found.tags = self._type()
        self._need(";")
        for name in names:
            yield msgspec.structs.replace(found, name=name)

    def _action(self, namespace: str) -> Iterator[_Declared]:
        names = [self._name()]
        while self._take(","):
            names.append(self._name())
        found = _Declared("action", namespace, "")
        if self._take("in"):
            found.within = tuple(self._list(self._reference)) if self._peek() == "[" else (self._reference(),)
        if self._take("appliesTo"):
            self._applies_to(found)
        if self._take("attributes"):
            self._type()
        self._need(";")
        for name in names:
            yield msgspec.structs.replace(found, name=name)

    def _applies_to(self, found: _Declared) -> None:
        self._need("{")
        while not self._take("}"):
            part = self._next().text
            self._need(":")
            match part:
                case "principal":
                    found.principals = self._types()
                case "resource":
                    found.resources = self._types()
                case "context":
                    found.body = self._type()
                case _:
                    raise ValueError(f"`{part}` cannot stand in appliesTo")
            self._take(",")

    def _types(self) -> tuple[str, ...]:
        return tuple(self._list(self._path)) if self._peek() == "[" else (self._path(),)

    def _type(self) -> Any:
        if self._take("{"):
            return dict(self._attributes())
        path = self._path()
        if path == "Set" and self._take("<"):
            element = self._type()
            self._need(">")
            return [element]
        return path

    def _attributes(self) -> Iterator[tuple[str, tuple[Any, bool]]]:
        while not self._take("}"):
            self._annotations()
            name = self._name()
            required = not self._take("?")
            self._need(":")
            yield name, (self._type(), required)
            if not self._take(",") and self._peek() != "}":
                raise ValueError("a comma is missing in a record of the schema")

    def _reference(self) -> tuple[str, str]:
        if self._tokens[self._at].kind is Kind.TEXT or self._peek(1) != "::":
            return "", self._name()
        path = self._next().text
        while self._take("::"):
            if self._tokens[self._at].kind is Kind.TEXT:
                return path, self._name()
            path = f"{path}::{self._next().text}"
        raise ValueError(f"`{path}` is no action")

    def _path(self) -> str:
        path = self._next().text
        while self._take("::"):
            path = f"{path}::{self._next().text}"
        return path

    def _name(self) -> str:
        token = self._next()
        return unescaped(token.text[1:-1]) if token.kind is Kind.TEXT else token.text

    def _list(self, one: Any) -> Iterator[Any]:
        self._need("[")
        while not self._take("]"):
            yield one()
            self._take(",")

    def _annotations(self) -> None:
        while self._take("@"):
            self._next()
            if self._take("("):
                self._next()
                self._need(")")

    def _peek(self, ahead: int = 0) -> str:
        place = self._at + ahead
        return self._tokens[place].text if place < len(self._tokens) else ""

    def _next(self) -> Token:
        if self._at >= len(self._tokens):
            raise ValueError("the schema is not finished")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, text: str) -> bool:
        found = self._peek() == text
        self._at += found
        return found

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise ValueError(f"`{text}` was expected before `{self._peek()}` in the schema")


def unescaped(text: str) -> str:
    """Return what a quoted text of Cedar means."""

    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2]
        return chr(int(code, 16)) if code else _SHORT.get(found[3], found[3])

    return _ESCAPE.sub(one, text)


def _full(namespace: str, name: str) -> str:
    return f"{namespace}::{name}" if namespace else name


class _Resolver:
    """Gives every name its meaning: the namespace's own before the global one before the built-in."""

    def __init__(self, declared: Iterable[_Declared]) -> None:
        found = list(declared)
        self._types = {_full(d.namespace, d.name): d for d in found if d.what == "type"}
        self._entities = {_full(d.namespace, d.name): d for d in found if d.what == "entity"}
        self._actions = {
            EntityUid(_full(d.namespace, "Action"), d.name): d for d in found if d.what == "action"
        }
        self._open: set[str] = set()
        self._contexts: dict[RecordType, RecordType] = {}

    def schema(self) -> Schema:
        for name in self._types:
            self._common(name)
        rules = {name: self._entity(name, declared) for name, declared in self._entities.items()}
        return Schema(rules, {uid: self._action(uid, declared) for uid, declared in self._actions.items()})

    def _entity(self, name: str, declared: _Declared) -> EntityRule:
        attrs = _NOTHING if declared.body is None else self._type(declared.body, declared.namespace)
        if not isinstance(attrs, RecordType):
            raise ValueError(f"the attributes of {name} are no record")  # noqa: TRY004 -- a schema's mistake
        tags = None if declared.tags is None else self._type(declared.tags, declared.namespace)
        return EntityRule(EntityType(name, declared.names), attrs, self._above(name), tags, Taker(attrs))

    def _above(self, name: str) -> frozenset[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            declared = self._entities[waiting.pop()]
            for parent in declared.within:
                full = self._entity_name(parent, declared.namespace)
                if full not in found:
                    found.add(full)
                    waiting.append(full)
        return frozenset(found)

    def _entity_name(self, name: str, namespace: str) -> str:
        for full in (_full(namespace, name), name):
            if full in self._entities:
                return full
        raise ValueError(f"the schema declares no entity type `{name}`")

    def _type(self, body: Any, namespace: str) -> Type:
        if isinstance(body, dict):
            return RecordType(
                {n: Field(self._type(t, namespace), required) for n, (t, required) in body.items()}
            )
        if isinstance(body, list):
            return SetType(self._type(body[0], namespace))
        return self._named(body, namespace)

    def _named(self, name: str, namespace: str) -> Type:
        for full in (_full(namespace, name), name):
            if full in self._types:
                return self._common(full)
            if full in self._entities:
                return EntityType(full, self._entities[full].names)
        built_in = PRIMITIVES.get(name.removeprefix(_BUILT_IN))
        if built_in is None:
            raise ValueError(f"the schema declares no type `{name}`")
        return built_in

    def _common(self, full: str) -> Type:
        if full in self._open:
            raise ValueError(f"the type `{full}` is made of itself")
        self._open.add(full)
        declared = self._types[full]
        found = self._type(declared.body, declared.namespace)
        self._open.discard(full)
        return found

    def _action(self, uid: EntityUid, declared: _Declared) -> ActionRule:
        context = _NOTHING if declared.body is None else self._type(declared.body, declared.namespace)
        if not isinstance(context, RecordType):
            raise ValueError(f"the context of {uid.cedar} is no record")  # noqa: TRY004 -- a schema's mistake
        sides = [
            frozenset(self._entity_name(name, declared.namespace) for name in names)
            for names in (declared.principals, declared.resources)
        ]
        # Actions of equal contexts share one, so that "the same" can be asked instead of "equal".
        context = self._contexts.setdefault(context, context)
        return ActionRule(uid, self._groups(uid), sides[0], sides[1], context)

    def _groups(self, uid: EntityUid) -> frozenset[EntityUid]:
        found: set[EntityUid] = set()
        waiting = [uid]
        while waiting:
            declared = self._actions[waiting.pop()]
            for path, name in declared.within:
                group = self._group(path, name, declared.namespace)
                if group not in found:
                    found.add(group)
                    waiting.append(group)
        return frozenset(found)

    def _group(self, path: str, name: str, namespace: str) -> EntityUid:
        for full in (_full(namespace, path or "Action"), path or "Action"):
            if EntityUid(full, name) in self._actions:
                return EntityUid(full, name)
        raise ValueError(f"the schema declares no action `{name}`")
