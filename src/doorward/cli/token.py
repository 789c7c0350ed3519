"""`doorward token`: a short-lived access token from the local issuer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call
from doorward.cli.output import JsonFlag, emit_json, guarded


def register(app: typer.Typer) -> None:
    """Add `token`."""
    app.command("token")(guarded(token))


def token(  # noqa: PLR0913 -- one option per claim
    *,
    user: Annotated[str, typer.Option(help="Whom the token is for: dana.")],
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
    """Print an access token for a user, for `Authorization: Bearer`."""
    claims = {"purpose": purpose, "audience": audience, "device": device}
    body = {"user": user, "mfa": mfa, **{name: value for name, value in claims.items() if value is not None}}
    minted = call(data, "POST", "/api/v1/tokens", body)
    if as_json:
        emit_json(minted)
        return
    sys.stdout.write(minted["access_token"] + "\n")
