"""What an enforcement point may ask, as `pep.toml` in the policies directory declares it.

```toml
[[pep]]
service = "orders-api"                 # the Service whose key it shows
context = ["purpose", "network"]       # circumstances it may state; others are ignored and noted
action_properties = ["soft"]           # reach policies as context.properties
[pep.subjects.user]                    # AuthZEN type -> type of the schema
type = "Doorward::User"
[pep.resources.order]
type = "Shop::order"
within = ["eu"]                        # only these names and what lies under them
properties = ["status"]                # what it may state where the directory says nothing
unregistered = true                    # objects the directory does not know may be asked about
```
A service that is not listed may ask about Doorward's own types by their names, and states nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping

import msgspec

from doorward.core.errors import InvalidConfigError
from doorward.core.model import NAMESPACE, EntityUid
from doorward.directory.vocabulary import ASSETS, PRINCIPALS

PEP_FILE = "pep.toml"
_OWN = frozenset(EntityUid.of(kind, "").type for kind in (*PRINCIPALS, *ASSETS, "Policy", "Key", "Control"))


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One type an enforcement point may name, and what it may say of such an object."""

    type: str
    within: tuple[str, ...] | None = None
    properties: frozenset[str] = frozenset()
    unregistered: bool = False

    def covers(self, name: str) -> bool:
        """Return whether an object of this name lies in the scope."""
        return self.within is None or any(
            name == above or name.startswith(above.rstrip("/") + "/") for above in self.within
        )


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one enforcement point may ask about and state; `own` opens Doorward's types by their names."""

    service: str
    subjects: dict[str, Kind] = msgspec.field(default_factory=dict)
    resources: dict[str, Kind] = msgspec.field(default_factory=dict)
    action_properties: frozenset[str] = frozenset()
    context: frozenset[str] = frozenset()
    own: bool = False

    def subject(self, name: str) -> Kind | None:
        """Return what a subject type means, None for one it may not name."""
        return self.subjects.get(name) or (_own(name) if self.own else None)

    def resource(self, name: str) -> Kind | None:
        """Return what a resource type means, None for one it may not name."""
        return self.resources.get(name) or (_own(name) if self.own else None)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pep: tuple[Scope, ...] = ()


def read_scopes(text: str, source: str) -> Mapping[str, Scope]:
    """Read `pep.toml`: scopes by service; raise InvalidConfigError for what is not understood."""
    try:
        scopes = msgspec.convert(tomllib.loads(text), _File).pep
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as reason:
        raise InvalidConfigError(
            f"{source}: {reason}", hint="See the docs on AuthZEN for its keys."
        ) from reason
    for scope in scopes:
        for kind in (*scope.subjects.values(), *scope.resources.values()):
            if kind.unregistered and kind.type in _OWN:
                raise InvalidConfigError(
                    f"{source}: `{kind.type}` cannot be unregistered",
                    hint="Principals and assets of Doorward exist only where the directory says so.",
                )
    found = {scope.service: scope for scope in scopes}
    if len(found) != len(scopes):
        raise InvalidConfigError(f"{source}: one service is declared twice", hint="Join the two.")
    return found


def undeclared(service: str, *, context: frozenset[str] = frozenset()) -> Scope:
    """Return the scope of a service that no file declares."""
    return Scope(service, own=True, context=context)


def _own(name: str) -> Kind | None:
    for full in _OWN:
        kind = full.removeprefix(f"{NAMESPACE}::")
        if name in {full, kind, kind.lower()}:
            return Kind(full)
    return None
