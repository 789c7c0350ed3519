"""How far a token shall reach: a scope names actions, `authorization_details` the rest (RFC 9396)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from doorward.console.oauth.forms import Form
from doorward.console.oauth.refusal import OAuthError
from doorward.core.errors import InvalidRequestError
from doorward.core.identity import Bounds
from doorward.core.model import Action
from doorward.identity import api_keys

DETAILS_TYPE = "doorward"
SCOPES = tuple(action.value for action in Action)
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_MOST = 64


class Details(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One authorization detail of ours: what a token may be used for at most.

    `resources` are names like `Model::"llm/tiny"` and cover what lies under them; `max_tokens` is the most
    a model may be asked for; `arguments` are what a tool must be called with, flattened: `path.0` -> text.
    """

    type: str
    actions: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=_MOST)] = ()
    upstreams: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=_MOST)] = ()
    resources: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=_MOST)] = ()
    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**31)] | None = None
    arguments: Annotated[dict[_Name, str], msgspec.Meta(max_length=_MOST)] = msgspec.field(
        default_factory=dict
    )


def wanted_bounds(form: Form) -> Bounds | None:
    """Return the bounds a request asks for, None if it asks for none; raise OAuthError."""
    scoped, detailed = _scope(form.get("scope")), _details(form.get("authorization_details"))
    if detailed is None:
        return None if scoped is None else Bounds(actions=scoped)
    if scoped is None:
        return detailed
    actions = tuple(a for a in scoped if not detailed.actions or a in detailed.actions)
    if not actions:
        raise OAuthError("invalid_scope", "scope and authorization_details leave nothing")
    return msgspec.structs.replace(detailed, actions=actions)


def scope_of(bounds: Iterable[Bounds]) -> str:
    """Return the actions that are within all bounds, as a scope; "" where no action is out of bounds.

    Raises OAuthError if nothing is left.
    """
    named = [bound.actions for bound in bounds if bound.actions]
    if not named:
        return ""
    left = [action for action in SCOPES if all(action in actions for actions in named)]
    if not left:
        raise OAuthError("invalid_scope", "this is more than the token it would come from")
    return " ".join(left)


def _scope(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    wanted = text.split(" ")
    unknown = [name for name in wanted if name not in SCOPES]
    if unknown:
        raise OAuthError("invalid_scope", f"a scope is made of actions: {' '.join(SCOPES)}")
    return tuple(sorted(set(wanted)))


def _details(text: str | None) -> Bounds | None:
    if text is None:
        return None
    try:
        (one,) = msgspec.json.decode(text, type=tuple[Details, ...])
        bounds = api_keys.bounds_of(actions=one.actions, upstreams=one.upstreams, resources=one.resources)
    except (msgspec.MsgspecError, ValueError, UnicodeError, InvalidRequestError) as reason:
        said = str(reason) if isinstance(reason, InvalidRequestError) else "one object of type doorward"
        raise OAuthError("invalid_authorization_details", said) from None
    if one.type != DETAILS_TYPE:
        raise OAuthError("invalid_authorization_details", f"the only type is {DETAILS_TYPE}")
    limits = tuple(sorted(one.arguments.items()))
    return msgspec.structs.replace(bounds or Bounds(), max_tokens=one.max_tokens, arguments=limits)
