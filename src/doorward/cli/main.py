"""`doorward`, short `dw`: the one entry point; a command is here once it works."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

from doorward import __version__

try:
    import typer
except ImportError:  # the library alone was installed
    sys.exit("doorward: the command line needs more packages: pip install 'doorward[server]'")

# One module per noun, in the order --help shows them; each has `register(app)`.
_NOUNS = (
    "demo", "up", "init", "protect", "doctor",
    "check", "fmt", "test", "can", "questions", "conformance",
    "apply", "people", "assets", "devices", "key", "login", "token",
    "audit", "why", "admin", "custodian",
)  # fmt: skip

app = typer.Typer(
    name="doorward",
    help="The door-keeper of your AI: who may do what with which model, dataset, endpoint or tool.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- the form typer calls
    if wanted:
        typer.echo(f"doorward {__version__}")
        raise typer.Exit


@app.callback()
def doorward(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Decide, enforce, explain and record who may do what with your AI."""
    del version


def main() -> None:
    """Register every noun and run the command line."""
    assembled()()


def assembled() -> typer.Typer:
    """Return the command line with every noun, and with `--url` where the control plane is asked."""
    for noun in _NOUNS:
        import_module(f"doorward.cli.{noun}").register(app)
    import_module("doorward.cli.elsewhere").reach(app)
    return app
