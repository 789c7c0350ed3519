"""Ask Doorward from your own program: in process, over its Unix socket, or over HTTP.

```python
from doorward.sdk import Client, DecisionPoint, guard

point = DecisionPoint(policies="policies", org="org.yaml")     # in this process
point = Client(socket=".doorward/control.sock")                # the local control plane
point = Client("https://doorward.example:8641", key=KEY)       # AuthZEN, with a Service's key

decision = point.can('User::"dana"', "read", 'Dataset::"store/training"')
if not decision.allowed: ...
```
All three answer with the same `Decision`. What cannot be answered (an error, a timeout, an answer
that makes no sense) is a denial with the reason in `errors`: nothing here ever fails open.
Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from doorward.core.decision import Change, Decision, Effect
    from doorward.core.model import EntityUid
    from doorward.sdk.asking import Asker
    from doorward.sdk.client import Client
    from doorward.sdk.embedded import DecisionPoint
    from doorward.sdk.guarding import guard
    from doorward.sdk.middleware import GuardMiddleware
    from doorward.sdk.web import Ask, requires

__all__ = [
    "Ask",
    "Asker",
    "Change",
    "Client",
    "Decision",
    "DecisionPoint",
    "Effect",
    "EntityUid",
    "GuardMiddleware",
    "guard",
    "requires",
]
_HOMES = {
    "Ask": "doorward.sdk.web",
    "Asker": "doorward.sdk.asking",
    "Change": "doorward.core.decision",
    "Client": "doorward.sdk.client",
    "Decision": "doorward.core.decision",
    "DecisionPoint": "doorward.sdk.embedded",
    "Effect": "doorward.core.decision",
    "EntityUid": "doorward.core.model",
    "GuardMiddleware": "doorward.sdk.middleware",
    "guard": "doorward.sdk.guarding",
    "requires": "doorward.sdk.web",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
