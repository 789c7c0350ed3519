"""One-time links: the first admin enrols a passkey with one, the operator opens the console with one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from doorward.console import session as sessions
from doorward.core.accounts import LinkKind, OneTimeLink
from doorward.core.errors import DeniedError
from doorward.core.model import EntityUid

if TYPE_CHECKING:
    from doorward.console.services import Services

ADMIN = EntityUid.of("User", "admin")
_ADMINS = EntityUid.of("Role", "admin")
LIFETIME = timedelta(minutes=15)
_PAGES = {LinkKind.ENROL: "/enrol", LinkKind.SESSION: "/open"}
_MAX_TOKEN = 128


def create(services: Services, kind: LinkKind, operator: str, *, principal: EntityUid | None = None) -> str:
    """Store a link and return its address; `principal` is whose factor it enrols.

    The token stands in the fragment: browsers send it to no server, so no log and no Referer has it.
    """
    token, now = sessions.new_token(), services.clock.now()
    services.directory.accounts.create_link(
        OneTimeLink(
            hash=sessions.digest(token),
            kind=kind,
            operator=operator,
            created=now,
            expires=now + LIFETIME,
            principal=principal,
        )
    )
    return f"{sessions.base_url(services)}{_PAGES[kind]}#{token}"


def first_admin_link(services: Services, operator: str) -> str | None:
    """Return a new link that enrols the first admin's passkey, or None when there is an admin."""
    if has_admin(services):
        return None
    return create(services, LinkKind.ENROL, operator)


def has_admin(services: Services) -> bool:
    """Return whether an admin has a factor to sign in with."""
    known = services.directory.snapshot
    entities = map(known.entity, services.directory.accounts.holders())
    return any(one is not None and (_ADMINS in one.parents or one.uid == ADMIN) for one in entities)


def peek(services: Services, token: str, kind: LinkKind) -> OneTimeLink:
    """Return the link without using it; raise DeniedError if it is used, over or unknown."""
    link = None
    if len(token) <= _MAX_TOKEN:
        link = services.directory.accounts.link(sessions.digest(token), services.clock.now())
    return _checked(link, kind)


def redeem(services: Services, token: str, kind: LinkKind) -> OneTimeLink:
    """Use the link up; of callers in parallel exactly one succeeds, the others raise DeniedError."""
    peek(services, token, kind)
    return _checked(
        services.directory.accounts.redeem_link(sessions.digest(token), services.clock.now()), kind
    )


def _checked(link: OneTimeLink | None, kind: LinkKind) -> OneTimeLink:
    if link is None or link.kind is not kind:
        raise DeniedError(
            "this link was used, is older than 15 minutes, or never existed",
            hint="Ask for a new one on the machine itself: `doorward admin link`.",
        )
    return link
