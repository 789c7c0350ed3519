"""Access tokens of the local issuer, for an installation without an identity provider."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from doorward.console import issuance
from doorward.console.authorise import Actor, govern
from doorward.core.model import Action, EntityUid

if TYPE_CHECKING:
    from doorward.console.services import Services
    from doorward.identity.issuer import MintedToken

Name = Annotated[str, Field(min_length=1, max_length=300)]


class TokenRequest(BaseModel):
    """Say whom a token is for; `mfa` and `device` are for tests only."""

    model_config = ConfigDict(extra="forbid")

    user: Name
    purpose: Name | None = None
    audience: Name | None = None
    mfa: bool = False
    device: Name | None = None


class TokenAnswer(BaseModel):
    """A new access token and the seconds it is valid (RFC 6749, 5.1)."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 -- a word, no secret
    expires_in: int


def router(services: Services) -> APIRouter:
    """Build the routes of this noun."""
    routes = APIRouter(tags=["tokens"])

    @routes.post("/tokens", status_code=201)
    async def mint_token(
        wanted: TokenRequest,
        request: Request,
        actor: Annotated[Actor, Depends(govern(Action.ISSUE, "keys"))],
    ) -> TokenAnswer:
        """Mint a short-lived access token; policies see that it was minted."""
        user, token = await asyncio.to_thread(_mint, services, wanted)
        await issuance.put_on_record(
            services,
            request,
            actor,
            action=Action.ISSUE,
            resource=EntityUid.of("Key", token.jti),
            detail=f"an access token for {user}",
            changes={
                "subject": str(user),
                "purpose": wanted.purpose,
                "audience": wanted.audience,
                "mfa": wanted.mfa,
                "device": wanted.device,
            },
        )
        return TokenAnswer(access_token=token.text.reveal(), expires_in=token.expires_in)

    return routes


def _mint(services: Services, wanted: TokenRequest) -> tuple[EntityUid, MintedToken]:
    snapshot = services.directory.snapshot
    user = issuance.named(snapshot, "User", wanted.user)
    issuance.require_purpose(snapshot, user, wanted.purpose)
    device = None if wanted.device is None else issuance.named(snapshot, "Device", wanted.device)
    token = services.issuer.mint(
        user,
        purpose=wanted.purpose,
        audience=wanted.audience,
        mfa=wanted.mfa,
        device=None if device is None else device.id,
    )
    return user, token
