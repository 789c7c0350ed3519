"""Tier 1: one Python function for all policies of a slice, directed by the types the schema promises.

The function either returns exactly what tier 0 would find, without errors, or raises; then tier 0 speaks.
So only what cannot fail silently is generated: where a type is not certain, tier 0's own closure of that
expression is called. Policy text reaches the source only as literals of `repr`, never as code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from doorward.cedar import closures, extensions, types
from doorward.cedar.circumstances import Circumstances
from doorward.cedar.contexts import Reader
from doorward.cedar.data import CedarSet, Datetime, Duration, Fixed, Network, equal, key, long
from doorward.cedar.env import Constant, Env
from doorward.cedar.like import matcher
from doorward.cedar.operators import contained
from doorward.cedar.schema import Schema
from doorward.cedar.scope import Asks, Rule
from doorward.cedar.types import BOOL, LONG, STRING, EntityType, RecordType, SetType, Type
from doorward.cedar.world import Node, World
from doorward.core.model import EntityUid

OnNode = Callable[[Node], bool]
# Whether an expression has one value whatever the resource, and that value.
Fold = Callable[[Mapping[str, Any]], tuple[bool, Any]]
# Principal, resource, context (a `Context` or a record, as the function was made for), entities.
Fast = Callable[[Node, Node, Any, World], int]
Typed = tuple[str, Type | None]

# Policies in one function; a slice of more becomes several, so that none holds others up for long.
CHUNK = 32
_CLASSES: dict[type, Type] = {
    bool: BOOL, int: LONG, str: STRING, Datetime: types.DATETIME, Duration: types.DURATION,
    Fixed: types.DECIMAL, Network: types.NETWORK,
}  # fmt: skip
_OF_TYPE = {wanted: cls for cls, wanted in _CLASSES.items()}
_RESULTS: dict[str, Type] = {
    "decimal": types.DECIMAL, "ip": types.NETWORK, "datetime": types.DATETIME, "duration": types.DURATION,
    "offset": types.DATETIME, "durationSince": types.DURATION, "toDate": types.DATETIME,
    "toTime": types.DURATION,
    **dict.fromkeys(("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"), LONG),
}  # fmt: skip
_ORDERED = frozenset({LONG, types.DATETIME, types.DURATION})
_PLAIN = frozenset(_OF_TYPE) - {BOOL}  # types whose values are their own keys


def parts(
    rules: Sequence[Rule], asks: Asks, schema: Schema, live: Circumstances | None = None
) -> Iterator[Fast]:
    """Yield functions that together test all rules; raise whatever goes wrong while making one.

    With `live` they take contexts as they come, else as records.
    """
    for start in range(0, max(1, len(rules)), CHUNK):
        writer = _Writer(schema, asks, live)
        source = writer.source(rules[start : start + CHUNK], start)
        exec(compile(source, "<slice>", "exec"), writer.names)  # noqa: S102 -- see the head of the file
        yield writer.names["fast"]


def reading(fast: Fast, read: Reader) -> Fast:
    """Return a function of contexts that makes a record of each first."""
    return lambda p, r, c, world: fast(p, r, read(c), world)


class OddError(Exception):
    """The context is not one of the usual form: tier 0 reads it with all care."""


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise TypeError("not a boolean")


def _has(node: Node | None, name: str) -> bool:
    return node is not None and name in node.attrs


def _has_tag(node: Node | None, name: str) -> bool:
    return node is not None and name in node.tags


class _Writer:
    """Writes one function; `names` are the objects its source refers to."""

    def __init__(self, schema: Schema, asks: Asks, live: Circumstances | None = None) -> None:
        self._schema = schema
        self._asks = asks
        self._live = live
        self._used: set[str] = set()
        self._kept: set[str] = set()
        self.names: dict[str, Any] = {
            "__builtins__": {}, "truth": _truth, "has": _has, "has_tag": _has_tag, "equal": equal, "key": key,
            "long": long, "contained": contained, "Env": Env, "action": asks.action, "OddError": OddError,
        }  # fmt: skip
        self._variables: dict[str, Typed] = {
            "principal": ("p.uid", EntityType(asks.principal)),
            "action": ("action", EntityType(asks.action.type)),
            "resource": ("r.uid", EntityType(asks.resource)),
            "context": ("record", schema.actions[asks.action].context),
        }

    def source(self, rules: Sequence[Rule], first: int = 0) -> str:
        """Return the source of `fast`, which tests every rule and returns a bit for each satisfied one.

        The first rule has the bit `first`.
        """
        constant, body = 0, []
        for number, rule in enumerate(rules, start=first):
            test = self._policy(rule.tree)
            if test is None:
                constant |= 1 << number
            else:
                body += [f"    if {test}:", f"        m |= {1 << number}"]
        return "\n".join(
            ["def fast(p, r, c, world):", *self._head(), f"    m = {constant}", *body, "    return m", ""]
        )

    def _head(self) -> Iterator[str]:
        """Yield what is done once: the context looked over, and what several rules read kept at hand."""
        live = self._live
        if live is not None:
            self.names |= {"check": live.check, "read": live.read}
            yield "    if check(c) is not True: raise OddError"
            yield from (f"    {name} = None" for name in sorted(self._kept))
        if self._used & {"record", "env"}:
            yield "    record = c" if live is None else "    record = read(c)"
        if "env" in self._used:
            yield "    env = Env(p.uid, action, r.uid, record, world)"
        if "node" in self._used:
            yield "    node = world.node"
        yield from (f"    {side}a = {side}.attrs" for side in "pr" if f"{side}a" in self._used)

    def _policy(self, tree: Mapping[str, Any]) -> str | None:
        parts = []
        for condition in tree["conditions"]:
            body = self._bool(condition["body"])
            parts.append(body if condition["kind"] == "when" else f"(not {body})")
        return " and ".join(parts) or None

    def _name(self, thing: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = thing
        return name

    def _exactly(self, tree: Mapping[str, Any]) -> Typed:
        """Return a call of tier 0's own closure."""
        self._used.add("env")
        return f"{self._name(closures.compiled(tree))}(env)", None

    def _bool(self, tree: Mapping[str, Any]) -> str:
        code, found = self.value(tree)
        return code if found == BOOL else f"truth({code})"

    def value(self, tree: Mapping[str, Any]) -> Typed:
        """Return the source of an expression and its type where it is certain."""
        ((form, body),) = tree.items()
        written = _FORMS.get(form, _Writer.call)(self, form, body)
        return self._exactly(tree) if written is None else written

    def _constant(self, value: Any) -> Typed:
        if type(value) is bool:
            return repr(value), BOOL
        if type(value) is EntityUid:
            return self._name(value), EntityType(value.type)
        found = _CLASSES.get(type(value))
        if type(value) is CedarSet:
            kinds = {self._kind(item) for item in value.items}
            found = SetType(kinds.pop()) if len(kinds) == 1 and None not in kinds else None
        return self._name(value), found

    def _kind(self, item: Any) -> Any:
        return EntityType(item.type) if type(item) is EntityUid else _CLASSES.get(type(item))

    def literal(self, _form: str, body: Any) -> Typed | None:
        compiled = closures.compiled({"Value": body})
        return self._constant(compiled.value) if isinstance(compiled, Constant) else None

    def variable(self, _form: str, body: str) -> Typed | None:
        if body == "context":
            self._used.add("record")
        return self._variables[body]

    def members(self, form: str, body: Any) -> Typed | None:
        compiled = closures.compiled({form: body})
        return self._constant(compiled.value) if isinstance(compiled, Constant) else None

    def joined(self, form: str, body: Any) -> Typed | None:
        word = " and " if form == "&&" else " or "
        return f"({word.join(self._bool(part) for part in closures.chain(form, {form: body}))})", BOOL

    def negation(self, _form: str, body: Any) -> Typed | None:
        return f"(not {self._bool(body['arg'])})", BOOL

    def negative(self, _form: str, body: Any) -> Typed | None:
        code, found = self.value(body["arg"])
        return (f"long(-{code})", LONG) if found == LONG else None

    def is_empty(self, _form: str, body: Any) -> Typed | None:
        code, found = self.value(body["arg"])
        return (f"(not {code}.items)", BOOL) if isinstance(found, SetType) else None

    def branch(self, _form: str, body: Any) -> Typed | None:
        (then, kind), (other, another) = self.value(body["then"]), self.value(body["else"])
        return f"({then} if {self._bool(body['if'])} else {other})", kind if kind == another else None

    def _node(self, tree: Mapping[str, Any], code: str) -> str:
        """Return the source of an entity's node: principal and resource are at hand."""
        match tree:
            case {"Var": "principal"}:
                return "p"
            case {"Var": "resource"}:
                return "r"
        self._used.add("node")
        return f"node({code})"

    def _attrs(self, node: str) -> str:
        if node not in _SIDES:
            return f"{node}.attrs"
        self._used.add(f"{node}a")
        return f"{node}a"

    def attribute(self, form: str, body: Any) -> Typed | None:
        name = body["attr"]
        if self._live is not None and (part := self._live.part(body["left"])) is not None:
            written = (
                self._live.has(part, name)
                if form == "has"
                else self._live.value(part, name, self._name, self._kept)
            )
            if written is not None:
                return written
        code, found = self.value(body["left"])
        if isinstance(found, RecordType):
            fields, record = found.fields, code
        elif isinstance(found, EntityType) and found.name in self._schema.entities:
            fields = self._schema.entities[found.name].attrs.fields
            node = self._node(body["left"], code)
            if form == "has" and node not in _SIDES:
                return f"has({node}, {name!r})", BOOL
            record = self._attrs(node)
        else:
            return None
        if form == "has":
            return f"({name!r} in {record})", BOOL
        return (f"{record}[{name!r}]", fields[name].type) if name in fields else None

    def is_of(self, _form: str, body: Any) -> Typed | None:
        code, found = self.value(body["left"])
        if not isinstance(found, EntityType):
            return None
        test = f"{code}.type == {body['entity_type']!r}"
        if "in" not in body:
            certain = "Var" in body["left"]  # anything else may err
            return (repr(found.name == body["entity_type"]) if certain else f"({test})"), BOOL
        if "Var" not in body["left"]:
            return None  # writing an expression twice doubles the source with every level of nesting
        return f"({test} and contained({code}, {self.value(body['in'])[0]}, world))", BOOL

    def like(self, _form: str, body: Any) -> Typed | None:
        code, found = self.value(body["left"])
        return (f"{self._name(matcher(body['pattern']))}({code})", BOOL) if found == STRING else None

    def compare(self, form: str, body: Any) -> Typed | None:
        (left, kind), (right, other) = self.value(body["left"]), self.value(body["right"])
        return (f"({left} {form} {right})", BOOL) if kind == other and kind in _ORDERED else None

    def arithmetic(self, form: str, body: Any) -> Typed | None:
        (left, kind), (right, other) = self.value(body["left"]), self.value(body["right"])
        return (f"long({left} {form} {right})", LONG) if kind == other == LONG else None

    def equality(self, form: str, body: Any) -> Typed | None:
        (left, kind), (right, other) = self.value(body["left"]), self.value(body["right"])
        if _direct(kind) and _direct(other) and type(kind) is type(other) and _same(kind, other):
            return f"({left} {form} {right})", BOOL
        return f"({'not ' if form == '!=' else ''}equal({left}, {right}))", BOOL

    def within(self, _form: str, body: Any) -> Typed | None:
        (left, kind), (right, other) = self.value(body["left"]), self.value(body["right"])
        if not isinstance(kind, EntityType):
            return None
        if isinstance(other, EntityType) and right.isidentifier() and "Var" in body["left"]:
            if body["left"]["Var"] == "action":
                above = self._schema.actions[self._asks.action].groups
                return repr(self.names[right] in {self._asks.action, *above}), BOOL
            node = self._node(body["left"], left)
            return f"({left} == {right} or {right} in {node}.ancestors)", BOOL
        return f"contained({left}, {right}, world)", BOOL

    def contains(self, form: str, body: Any) -> Typed | None:
        (left, kind), (right, other) = self.value(body["left"]), self.value(body["right"])
        if not isinstance(kind, SetType):
            return None
        if form == "contains":
            item = right if other in _PLAIN or isinstance(other, EntityType) else f"key({right})"
            return f"({item} in {left}.items)", BOOL
        if not isinstance(other, SetType):
            return None
        if form == "containsAll":
            return f"({left}.items >= {right}.items)", BOOL
        return f"(not {left}.items.isdisjoint({right}.items))", BOOL

    def tag(self, form: str, body: Any) -> Typed | None:
        (left, kind), (right, other) = self.value(body["left"]), self.value(body["right"])
        if not isinstance(kind, EntityType) or other != STRING:
            return None
        node = self._node(body["left"], left)
        if form == "hasTag":
            return f"has_tag({node}, {right})", BOOL
        rule = self._schema.entities.get(kind.name)
        return f"{node}.tags[{right}]", None if rule is None else rule.tags

    def call(self, form: str, body: Any) -> Typed | None:
        wanted, compute = extensions.FUNCTIONS[form]
        compiled = closures.compiled({form: body})
        if isinstance(compiled, Constant):
            return self._constant(compiled.value)
        written = [self.value(argument) for argument in body]
        if [_OF_TYPE.get(found) if found is not None else None for _, found in written] != list(wanted):
            return None
        return f"{self._name(compute)}({', '.join(code for code, _ in written)})", _RESULTS.get(form, BOOL)


def _direct(kind: Type | None) -> bool:
    """Return whether Python's `==` is Cedar's for two values of this type."""
    return kind in _OF_TYPE or isinstance(kind, EntityType)


def _same(kind: Type | None, other: Type | None) -> bool:
    return isinstance(kind, EntityType) or kind == other


def of_resource(
    conditions: Sequence[Mapping[str, Any]],
    asks: Asks,
    schema: Schema,
    *,
    constant: Fold,
    known: Mapping[str, Any],
) -> OnNode:
    """Return a test of the resource alone: what `constant` knows stands in it as constants.

    `known` are p, c and world, as `Fast` takes them, the context as a record.
    """
    writer = _Folding(schema, asks, constant)
    source = writer.test(conditions)
    writer.names |= known
    exec(compile(source, "<sieve>", "exec"), writer.names)  # noqa: S102 -- see the head of the file
    made: OnNode = writer.names["test"]
    return made


class _Folding(_Writer):
    """Writes a function of the resource's node."""

    def __init__(self, schema: Schema, asks: Asks, fold: Fold) -> None:
        super().__init__(schema, asks)
        self._fold = fold

    def test(self, conditions: Sequence[Mapping[str, Any]]) -> str:
        """Return the source of `test`, which says whether all conditions hold."""
        condition = " and ".join([self._bool(part) for part in conditions])
        return "\n".join(["def test(r):", *self._head(), f"    return {condition}", ""])

    def value(self, tree: Mapping[str, Any]) -> Typed:
        """Write a constant where there is one, else as ever."""
        same, value = self._fold(tree)
        if not same:
            return super().value(tree)
        if type(value) is bool:
            return repr(value), BOOL
        code, found = self._constant(value)
        return code, found or self._type_of(tree)

    def _type_of(self, tree: Mapping[str, Any]) -> Type | None:
        """Return the type the schema gives an expression (of an empty set, say); its source is not kept."""
        used = set(self._used)
        found = super().value(tree)[1]
        self._used = used
        return found


_SIDES = frozenset("pr")
_FORMS: dict[str, Callable[[_Writer, str, Any], Typed | None]] = {
    "Value": _Writer.literal, "Var": _Writer.variable, "Set": _Writer.members, "&&": _Writer.joined,
    "||": _Writer.joined, "!": _Writer.negation, "neg": _Writer.negative, "isEmpty": _Writer.is_empty,
    "if-then-else": _Writer.branch, ".": _Writer.attribute, "has": _Writer.attribute, "is": _Writer.is_of,
    "like": _Writer.like, "in": _Writer.within, "==": _Writer.equality, "!=": _Writer.equality,
    **dict.fromkeys(("<", "<=", ">", ">="), _Writer.compare),
    **dict.fromkeys(("+", "-", "*"), _Writer.arithmetic),
    **dict.fromkeys(("contains", "containsAll", "containsAny"), _Writer.contains),
    **dict.fromkeys(("hasTag", "getTag"), _Writer.tag),
    "Record": lambda *_: None,
}  # fmt: skip
