"""`doorward up`: run Doorward; the supervisor, or one role of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from doorward.cli.output import Exit, guarded, say

if TYPE_CHECKING:
    from doorward.settings import Settings

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The configuration file (doorward.toml).")
]


def register(app: typer.Typer) -> None:
    """Add `up`."""
    app.command("up")(guarded(up))


def up(  # noqa: PLR0913, PLR0917 -- one parameter per option
    config: ConfigOption = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Where data lives (DOORWARD_DATA, default .doorward).")
    ] = None,
    role: Annotated[str, typer.Option(help="all, control, gateway, ledger or shadow.")] = "all",
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Gateway processes that share the port.")
    ] = None,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run Doorward: gateway, control plane and console, until Ctrl-C."""
    import asyncio

    from doorward import settings as configuration

    settings = configuration.load(config, data=data)
    if workers is not None:
        gateway = settings.gateway.model_copy(update={"workers": workers})
        settings = settings.model_copy(update={"gateway": gateway})
    match role:
        case "all" | "gateway" if not worker:
            raise typer.Exit(asyncio.run(_all(settings, config, role)))
        case "control":
            from doorward.app.control import run_control

            asyncio.run(run_control(settings, lifeline=lifeline))
        case "gateway":
            import uvloop

            from doorward.app.gateway import run_gateway

            uvloop.run(run_gateway(settings, worker, listener=listener, lifeline=lifeline))
        case "ledger":
            from doorward.app.ledger import run_ledger

            asyncio.run(run_ledger(settings, lifeline=lifeline))
        case "shadow":
            from doorward.app.shadow import run_shadow

            asyncio.run(run_shadow(settings, lifeline=lifeline))
        case _:
            say(f"doorward: `{role}` is not a role; write all, control, gateway, ledger or shadow")
            raise typer.Exit(Exit.USAGE)


async def _all(settings: Settings, config: Path | None, role: str) -> int:
    from doorward import telemetry
    from doorward.app.supervisor import DATA_ROLES, ROLES, SHADOW, supervise

    telemetry.configure(role="supervisor")
    arguments: tuple[str, ...] = ("--data", str(settings.data))
    if config is not None:
        arguments += ("--config", str(config.absolute()))
    scheme = "https" if settings.gateway.tls else "http"

    def announce() -> None:
        say(f"gateway  {scheme}://{settings.gateway.listen}   (stock clients change only their base URL)")
        for upstream in settings.upstream:
            say(f"           /{upstream.name}  ->  {upstream.kind} at {upstream.url}")
        say(f"console  {settings.control_url}")
        say(f"data     {settings.data}")
        if sys.stdout.isatty():
            say("Ctrl-C stops it.")
        if not settings.upstream:
            say("No upstream is protected yet: `doorward protect KIND URL` writes the configuration for one.")

    roles = ROLES if role == "all" else DATA_ROLES
    if settings.shadow.every and role == "all":
        roles = (*roles, SHADOW)
    return await supervise(settings, arguments=arguments, roles=roles, on_ready=announce)
