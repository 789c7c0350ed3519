"""One question about many resources: what does not name the resource is evaluated once, the rest for each.

Resources of one signature meet the same policies; of each policy only what names the resource is left,
and a condition that is tested often becomes a generated function with all else written in as constants.
What errs, or is left to tier 0, is decided by tier 0's own closure of that policy on that resource: so the
answer is always the one that evaluating each request by itself gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from doorward.cedar import closures, generated
from doorward.cedar.closures import chain
from doorward.cedar.data import Fault
from doorward.cedar.env import Env
from doorward.cedar.generated import OnNode
from doorward.cedar.index import Index, Signature
from doorward.cedar.schema import Schema
from doorward.cedar.scope import Asks, Rule
from doorward.cedar.slices import Test
from doorward.cedar.world import Node, World
from doorward.core.model import EntityUid

# A condition tested this often is worth generating; each takes about a tenth of a millisecond.
_OFTEN = 64
# More signatures, or conditions, than this are not kept.
_MAX_KEPT = 65_536

Tree = Mapping[str, Any]


class Rest:
    """What is left of one policy for one principal, action and context.

    `never`, `errs` and `broken` hold whatever the resource; otherwise `test` tells, by a node, and may
    raise. What is broken (it reads an entity that breaks the schema) denies all it applies to.
    """

    __slots__ = ("broken", "errs", "never", "rule", "test", "tested", "tree")

    def __init__(self, rule: Rule) -> None:
        """Begin with a policy of which nothing is known."""
        self.rule = rule
        self.never = self.errs = self.broken = False
        self.tree: list[Tree] = []
        self.tested = 0
        self.test: OnNode = _always


def _always(_node: Node) -> bool:
    return True


# For resources of one signature: always that, or the tests of permits and of forbids.
Verdict = bool | tuple[tuple[Rest, ...], tuple[Rest, ...]]


class Sieve:
    """Tell which resources one principal may do one thing to, under one context."""

    def __init__(  # noqa: PLR0913 -- what an engine is made of; only `Engine.sieve` calls it
        self,
        *,
        principal: Node,
        action: EntityUid,
        record: Any,
        world: World,
        index: Index,
        tests: Mapping[str, Test],
        schema: Schema,
        strict: bool,
    ) -> None:
        """Keep the question; `record` is its context, checked, with every attribute that policies read."""
        self._principal, self._action, self._record, self._world = principal, action, record, world
        self._index, self._tests, self._schema, self._strict = index, tests, schema, strict
        self._signature = index.as_principal(principal)
        self._known = schema.actions[action]
        self._resource_types = self._known.resources if principal.uid.type in self._known.principals else ()
        self._rests: dict[tuple[str, str], Rest] = {}
        # By what is left, whose trees the rests keep.
        self._same: dict[tuple[bool, str, tuple[int, ...]], Rest] = {}
        self._verdicts: dict[Signature, Verdict] = {}
        self._naming: dict[int, tuple[Any, bool]] = {}
        self._env = Env(principal.uid, action, EntityUid("", ""), record, world)

    def allows(self, node: Node) -> bool:  # noqa: C901 -- two loops without a call for each test
        """Return whether the policies allow it on this resource."""
        signature = node.as_resource
        verdict = self._verdicts.get(signature)
        if verdict is None:
            verdict = self._verdict(node)
        if verdict is True or verdict is False:
            return verdict
        permits, forbids = verdict
        allowed = False
        try:
            # All of them: one that cannot be evaluated at all denies, whatever the others say.
            for rest in permits:
                try:
                    found = rest.test(node)
                except Exception:  # noqa: BLE001 -- an error, or a case left to tier 0
                    found = self._exactly(rest.rule, node, erring=False)
                if found:
                    allowed = True
            if not allowed:
                return False
            for rest in forbids:
                try:
                    found = rest.test(node)
                except Exception:  # noqa: BLE001 -- as above
                    found = self._exactly(rest.rule, node, erring=self._strict)
                if found:
                    return False
        except Exception:  # noqa: BLE001 -- as `Engine.evaluate`: whatever goes wrong, the answer is deny
            return False
        return True

    def _verdict(self, node: Node) -> Verdict:
        signature: Signature = node.as_resource or self._index.as_resource(node)
        node.as_resource = signature
        found = self._verdicts.get(signature)
        if found is None:
            if len(self._verdicts) >= _MAX_KEPT:
                self._verdicts.clear()
            self._verdicts[signature] = found = self._made(signature)
        return found

    def _made(self, signature: Signature) -> Verdict:
        if signature.type not in self._resource_types:
            return False
        rules = self._index.rules(self._action, self._signature, signature)
        rests = [self._rest(rule, signature.type) for rule in rules]
        if any(rest.broken or (rest.errs and rest.rule.forbid and self._strict) for rest in rests):
            return False
        left = [rest for rest in rests if not (rest.never or rest.errs)]
        permits = tuple(dict.fromkeys(rest for rest in left if not rest.rule.forbid))
        forbids = tuple(dict.fromkeys(rest for rest in left if rest.rule.forbid))
        if not permits or not all(rest.tree for rest in forbids):
            return False
        return (permits, forbids) if forbids or any(rest.tree for rest in permits) else True

    def _rest(self, rule: Rule, kind: str) -> Rest:
        """Return what is left of a policy for resources of a type."""
        key = (rule.key, kind)
        found = self._rests.get(key)
        if found is None:
            if len(self._rests) >= _MAX_KEPT:
                self._rests.clear()
            self._rests[key] = found = self._reduced(rule, kind)
        return found

    def _reduced(self, rule: Rule, kind: str) -> Rest:
        """Evaluate a policy's conditions up to the first that names the resource."""
        rest = Rest(rule)
        for part in _parts(rule.tree):
            if rest.tree or self._names(part):
                rest.tree.append(part)
                continue
            try:
                value = closures.compiled(part)(self._env)
            except Fault:
                value = None
            except Exception:  # noqa: BLE001 -- as in `allows`
                rest.broken = True
                return rest
            rest.never, rest.errs = value is False, value is not True and value is not False
            if rest.never or rest.errs:
                return rest
        # Many policies leave the very same behind (see `sharing`): it is tested once for all of them.
        key = rule.forbid, kind, tuple(map(id, rest.tree))
        same = self._same.get(key)
        if same is not None:
            return same
        if len(self._same) >= _MAX_KEPT:
            self._same.clear()
        rest.test = self._counted(rest, kind) if rest.tree else _always
        self._same[key] = rest
        return rest

    def _counted(self, rest: Rest, kind: str) -> OnNode:
        """Return tier 0's test, which makes way for a generated one once it was asked often."""
        test = closures.policy({"conditions": [{"kind": "when", "body": part} for part in rest.tree]})

        def counted(node: Node) -> bool:
            rest.tested += 1
            if rest.tested == _OFTEN:
                rest.test = self._fast(rest, kind) or plain
            return plain(node)

        def plain(node: Node) -> bool:
            return test(Env(self._principal.uid, self._action, node.uid, self._record, self._world))

        return counted

    def _fast(self, rest: Rest, kind: str) -> OnNode | None:
        asks = Asks(self._principal.uid.type, self._action, kind)
        known = {"p": self._principal, "c": self._record, "world": self._world}
        try:
            return generated.of_resource(rest.tree, asks, self._schema, constant=self._constant, known=known)
        except Exception:  # noqa: BLE001 -- whatever the policy is made of, tier 0 can test it
            return None

    def _exactly(self, rule: Rule, node: Node, *, erring: bool) -> bool:
        """Return tier 0's word on a policy; `erring` is what an error counts as."""
        env = Env(self._principal.uid, self._action, node.uid, self._record, self._world)
        try:
            return self._tests[rule.key](env)
        except Fault:
            return erring

    def _names(self, tree: Any) -> bool:
        """Return whether an expression names the resource; the tree is kept, so that its id stays its own."""
        if not isinstance(tree, (Mapping, list)):
            return False
        known = self._naming.get(id(tree))
        if known is None:
            parts = tree.values() if isinstance(tree, Mapping) else tree
            names = tree == _RESOURCE or any(self._names(part) for part in parts)
            self._naming[id(tree)] = known = (tree, names)
        return known[1]

    def _constant(self, tree: Tree) -> tuple[bool, Any]:
        """Return whether an expression has one value for all resources, and that value."""
        if self._names(tree):
            return False, None
        try:
            return True, closures.compiled(tree)(self._env)
        except Fault:
            return False, None  # it must err again where it stands


_RESOURCE = {"Var": "resource"}


def _parts(tree: Tree) -> Iterator[Tree]:
    """Yield what must all be true, in the order Cedar evaluates it."""
    for condition in tree["conditions"]:
        if condition["kind"] == "when":
            yield from chain("&&", condition["body"])
        else:
            yield {"!": {"arg": condition["body"]}}
