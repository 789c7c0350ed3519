"""Delegate: an agent gets a token to act for somebody, never for more, longer or elsewhere (RFC 8693).

The principal stays who it is, and the agent is put before whoever acts already. Everything the new token
comes from goes into its descent, so that any of it ends the token. What policies say of the principal and
of each agent is not decided here but on every request, anew.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from doorward.core.identity import Act, Bounds, Descent
from doorward.core.model import EntityUid
from doorward.identity.claims import VerifiedToken
from doorward.identity.issuer import Granted
from doorward.identity.local_claims import require_chain
from doorward.identity.strict_jose import TokenFaultError


class Parent(msgspec.Struct, frozen=True):
    """A token that stands, whom it stands for, and where it may be used."""

    token: VerifiedToken
    principal: EntityUid
    audience: str


class ActingCredential(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent showed of itself: the keys or the token it came with, their bounds, purpose and end."""

    agent: EntityUid
    client: str
    keys: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    bounds: tuple[Bounds, ...] = ()
    purpose: str | None = None
    until: datetime | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: where the token shall be used, for how much at most, bound to which key."""

    audience: str
    bounds: Bounds | None = None
    proof_key: str | None = None
    scope: str = ""


def delegated(parent: Parent, *, acting: ActingCredential, wanted: Wanted, now: datetime) -> Granted:
    """Return what the agent's token shall say.

    Raises TokenFaultError with the reason: a chain that may not be, or more asked for than there is.
    """
    subject, principal = parent.token, parent.principal
    # 1. The chain: at most so long, nobody in it twice, only agents.
    require_chain(principal, (acting.agent, *subject.actors))
    # 2. Not elsewhere.
    if not _within(wanted.audience, parent.audience):
        raise TokenFaultError("audience_wider")
    # 3. Not longer than anything it comes from.
    ends = (subject.expires, acting.until, subject.vouched_until)
    until = min(end for end in ends if end is not None)
    # 4. Not for another purpose.
    purpose = _purpose(subject.purpose, acting.purpose)
    # 5. Not for more: each bound there is holds on, beside what is asked for.
    own = () if wanted.bounds is None else (wanted.bounds,)
    before = subject.descent or Descent()
    return Granted(
        principal=principal,
        client=acting.client,
        audience=wanted.audience,
        until=until,
        purpose=purpose,
        minted=subject.minted,
        mfa=subject.minted_mfa,
        signed_in_at=subject.signed_in_at,
        acr=subject.acr,
        amr=("mfa",) if subject.mfa_at is not None else (),
        descent=Descent(
            tokens=_once(subject.jti, *before.tokens, *acting.tokens),
            keys=_once(*before.keys, *acting.keys),
            identities=before.identities,
            acts=(Act(acting.agent, now, until), *before.acts),
        ),
        bounds=tuple(dict.fromkeys((*subject.bounds, *acting.bounds, *own))),
        proof_key=wanted.proof_key,
        scope=wanted.scope,
    )


def _within(wanted: str, held: str) -> bool:
    return wanted == held or wanted.startswith(f"{held.rstrip('/')}/")


def _purpose(held: str | None, acting: str | None) -> str | None:
    if held is not None and acting is not None and held != acting:
        raise TokenFaultError("purposes_differ")
    return held if held is not None else acting


def _once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
