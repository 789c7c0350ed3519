"""`doorward`, short `dw`: the one entry point; a command is here once it works."""

from __future__ import annotations

from importlib import import_module

import typer

# One module per noun, in the order --help shows them; each has `register(app)`.
_NOUNS = (
    "demo", "up", "init", "protect", "doctor",
    "check", "fmt", "test", "can", "questions", "conformance",
    "apply", "people", "assets", "devices", "key", "token",
    "audit", "why", "admin",
)  # fmt: skip

app = typer.Typer(
    name="doorward",
    help="The door-keeper of your AI: who may do what with which model, dataset, endpoint or tool.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Register every noun and run the command line."""
    for noun in _NOUNS:
        import_module(f"doorward.cli.{noun}").register(app)
    app()
