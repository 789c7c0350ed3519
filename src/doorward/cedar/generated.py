"""Tier 1: one Python function for all policies of a slice, directed by the types the schema promises.

The function either returns exactly what tier 0 would find, without errors, or raises; then tier 0 speaks.
So only what cannot fail silently is generated: where a type is not certain, tier 0's own closure of that
expression is called. Policy text reaches the source only as literals of `repr`, never as code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from doorward.cedar import closures, extensions, types
from doorward.cedar.data import CedarSet, Datetime, Duration, Fixed, Network, equal, key, long
from doorward.cedar.env import Constant, Env
from doorward.cedar.like import matcher
from doorward.cedar.operators import contained
from doorward.cedar.schema import Schema
from doorward.cedar.scope import Rule
from doorward.cedar.types import BOOL, LONG, STRING, EntityType, RecordType, SetType, Type
from doorward.cedar.world import Node
from doorward.core.model import EntityUid

Fast = Callable[[Env], int]
Typed = tuple[str, Type | None]

# More policies than this in one slice would take too long to generate between two requests.
MAX_RULES = 96
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


def function(
    rules: Sequence[Rule], principal: str, action: EntityUid, resource: str, schema: Schema
) -> Fast | None:
    """Return the function for these rules on requests of these types, or None where none can be made."""
    if len(rules) > MAX_RULES or action not in schema.actions:
        return None
    writer = _Writer(schema, principal, action, resource)
    try:
        source = writer.source(rules)
        exec(compile(source, "<slice>", "exec"), writer.names)  # noqa: S102 -- see the head of the file
    except (SyntaxError, RecursionError, MemoryError, ValueError, KeyError):
        return None
    made: Fast = writer.names["fast"]
    return made


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

    def __init__(self, schema: Schema, principal: str, action: EntityUid, resource: str) -> None:
        self._schema = schema
        self._variables: dict[str, Typed] = {
            "principal": ("env.principal", EntityType(principal)),
            "action": ("env.action", EntityType(action.type)),
            "resource": ("env.resource", EntityType(resource)),
            "context": ("c", schema.actions[action].context),
        }
        self._used: set[str] = set()
        self.names: dict[str, Any] = {
            "__builtins__": {}, "truth": _truth, "has": _has, "has_tag": _has_tag, "equal": equal, "key": key,
            "long": long, "contained": contained,
        }  # fmt: skip

    def source(self, rules: Sequence[Rule]) -> str:
        """Return the source of `fast`, which tests every rule and returns a bit for each satisfied one."""
        constant, body = 0, []
        for number, rule in enumerate(rules):
            test = self._policy(rule.tree)
            if test is None:
                constant |= 1 << number
            else:
                body += [f"    if {test}:", f"        m |= {1 << number}"]
        head = ["def fast(env):", f"    m = {constant}", "    c = env.context", "    node = env.world.node"]
        head += [f"    {name} = node(env.{side})" for name, side in _NODES.items() if name in self._used]
        return "\n".join([*head, *body, "    return m", ""])

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
        """Return the source of an entity's node: fetched once for principal and resource."""
        match tree:
            case {"Var": "principal" | "resource" as side}:
                name = "p" if side == "principal" else "r"
                self._used.add(name)
                return name
        return f"node({code})"

    def attribute(self, form: str, body: Any) -> Typed | None:
        code, found = self.value(body["left"])
        name = body["attr"]
        if isinstance(found, RecordType):
            fields, record = found.fields, code
        elif isinstance(found, EntityType) and found.name in self._schema.entities:
            fields = self._schema.entities[found.name].attrs.fields
            node = self._node(body["left"], code)
            if form == "has":
                return f"has({node}, {name!r})", BOOL
            record = f"{node}.attrs"
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
            return f"({test})", BOOL
        if "Var" not in body["left"]:
            return None  # writing an expression twice doubles the source with every level of nesting
        return f"({test} and contained({code}, {self.value(body['in'])[0]}, env))", BOOL

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
        if isinstance(other, EntityType) and right.isidentifier():
            node = self._node(body["left"], left)
            if node in _NODES:
                return f"({left} == {right} or {right} in {node}.ancestors)", BOOL
        return f"contained({left}, {right}, env)", BOOL

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


_NODES = {"p": "principal", "r": "resource"}
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
