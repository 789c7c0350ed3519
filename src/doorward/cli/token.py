"""`doorward token`: a short-lived access token from the local issuer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from doorward.cli import remote
from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import JsonFlag, emit_json, guarded
from doorward.core.errors import InvalidRequestError


def register(app: typer.Typer) -> None:
    """Add `token`."""
    app.command("token")(guarded(token))


def token(  # noqa: PLR0913 -- one option per claim
    *,
    user: Annotated[
        str | None, typer.Option(help="Whom the token is for: dana. After `doorward login`: oneself.")
    ] = None,
    purpose: Annotated[str | None, typer.Option(help="The one purpose it may be used for.")] = None,
    audience: Annotated[str | None, typer.Option(help="Whom it is meant for; default: the gateway.")] = None,
    mfa: Annotated[
        bool, typer.Option("--mfa", help="Claim MFA; only under [identity] test_minting.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="Claim a proven device; only under [identity] test_minting.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    as_json: JsonFlag = False,
) -> None:
    """Print an access token for a user, for `Authorization: Bearer`; signed in elsewhere, one's own.

    Only a token of one's own sign-in counts as MFA; a minted one never does.
    """
    if user is None:
        _own(audience, given=(purpose, device, mfa or None), as_json=as_json)
        return
    claims = {"purpose": purpose, "audience": audience, "device": device}
    body = {"user": user, "mfa": mfa, **{name: value for name, value in claims.items() if value is not None}}
    minted = call(data, "POST", "/api/v1/tokens", body)
    if as_json:
        emit_json(minted)
        return
    sys.stdout.write(minted["access_token"] + "\n")


def _own(audience: str | None, *, given: tuple[object, ...], as_json: bool) -> None:
    """Print a token of one's own sign-in, for the gateway unless something else is named."""
    there = remote.chosen()
    if there is None or any(one is not None for one in given):
        raise InvalidRequestError(
            "whom is the token for?", hint="Name a --user, or sign in elsewhere and use --url alone."
        )
    login = remote.login_at(there)
    text = remote.access_token(there, audience or (there.url if login is None else login.gateway))
    if as_json:
        emit_json({"access_token": text, "token_type": "Bearer"})
    else:
        sys.stdout.write(text + "\n")
