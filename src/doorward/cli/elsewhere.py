"""Give every command that speaks to the control plane `--url` and `--ca`: the same words at one place."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from doorward.cli import connection
from doorward.cli.output import guarded
from doorward.core.errors import InvalidRequestError

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="DOORWARD_URL",
        help="A control plane elsewhere, after `doorward login`; else the socket.",
    ),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", envvar="DOORWARD_CA", help="The CA that vouches for --url (PEM).")
]
_OURS = (connection.call, connection.every)


def reach(app: typer.Typer) -> None:
    """Add the options to every command of an application that speaks to the control plane."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _reaching(command.callback)
    for group in app.registered_groups:
        inner = group.typer_instance
        if inner is None:
            continue
        reach(inner)
        if inner.registered_callback is not None and inner.registered_callback.callback is not None:
            inner.registered_callback.callback = _reaching(inner.registered_callback.callback)


def _reaching(command: Callable[..., Any]) -> Callable[..., Any]:
    if not _speaks(command):
        return command

    @wraps(command)
    def run(*args: Any, url: str | None = None, ca: Path | None = None, **named: Any) -> Any:
        _choose(named.get("data"), url, ca)
        return command(*args, **named)

    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (("url", UrlOption), ("ca", CaOption))
    ]
    whole = signature.replace(parameters=[*signature.parameters.values(), *more])
    run.__signature__ = whole  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {p.name: p.annotation for p in [*signature.parameters.values(), *more]}
    del run.__wrapped__  # typer would read the signature behind it
    return guarded_like(run)


def guarded_like(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose choice of address is told like any other error."""
    told = guarded(run)
    told.__signature__ = run.__signature__  # type: ignore[attr-defined]  # as above
    del told.__wrapped__  # type: ignore[attr-defined]  # as above
    return told


def _speaks(command: Callable[..., Any]) -> bool:
    """Return whether a command names a data directory and its module calls the control plane."""
    inner = inspect.unwrap(command)
    if "data" not in inspect.signature(inner).parameters:
        return False
    return any(value in _OURS for value in inner.__globals__.values() if callable(value))


def _choose(data: Path | None, url: str | None, ca: Path | None) -> None:
    from doorward.cli import remote

    ours = None if data in {None, connection.DEFAULT_DATA} else str(data)
    spoken_url = url is not None and url != os.environ.get("DOORWARD_URL")
    spoken_data = ours is not None and ours != os.environ.get("DOORWARD_DATA")
    # What is said on the command line is meant, whatever the environment holds.
    if url is not None and ours is not None and spoken_url == spoken_data:
        raise InvalidRequestError(
            "both a data directory and an address are given", hint="Leave out --data or --url."
        )
    away = url is not None and not spoken_data
    remote.choose(url if away else None, ca if away or (url is None and spoken_ca(ca)) else None)


def spoken_ca(ca: Path | None) -> bool:
    """Return whether `--ca` stands on the command line, not in the environment."""
    return ca is not None and str(ca) != os.environ.get("DOORWARD_CA")
