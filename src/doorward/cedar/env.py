"""What one evaluation reads, and what every operator of tier 0 is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doorward.cedar.data import Fault, kind
from doorward.cedar.world import Node, World
from doorward.core.model import EntityUid


class Env:
    """What one evaluation reads: the request, its context, and the entities."""

    __slots__ = ("action", "context", "principal", "resource", "world")

    def __init__(
        self, principal: EntityUid, action: EntityUid, resource: EntityUid, context: Any, world: World
    ) -> None:
        """Keep them."""
        self.principal = principal
        self.action = action
        self.resource = resource
        self.context = context
        self.world = world


Expr = Callable[[Env], Any]


class Constant:
    """An expression whose value is known; kept as a class so that folding can see it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        """Keep the value."""
        self.value = value

    def __call__(self, _env: Env) -> Any:
        """Return it, whatever the request."""
        return self.value


def wrong(expected: str, value: Any) -> Fault:
    """Return the error of a value that is not of the expected type."""
    return Fault(f"type error: expected {expected}, got {kind(value)}")


def existing(uid: EntityUid, env: Env) -> Node:
    """Return an entity; raise Fault if there is none."""
    node = env.world.node(uid)
    if node is None:
        raise Fault(f"entity `{uid.cedar}` does not exist")
    return node
