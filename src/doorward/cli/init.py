"""`doorward init`: a configuration, the schema, a starter pack and its passing tests."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from doorward.cli.output import JsonFlag, emit_json, guarded, say
from doorward.core.errors import ConflictError

_CONFIG = """\
# Doorward's configuration. Every key can also be given as DOORWARD_<SECTION>__<KEY>.
# Secrets stand here only by reference: "${NAME}" or "file:PATH".

[gateway]
listen = "127.0.0.1:8640"
# tls = "auto"            # a local CA: encrypts, and lets devices prove themselves

[control]
listen = "127.0.0.1:8641"

[policies]
path = "policies"         # *.cedar, *_test.yaml, guardrails/*.cedar; changes rule at once

# `doorward protect KIND URL` adds one of these for a system you run:
# [[upstream]]
# name = "llm"
# kind = "openai"         # openai | mlflow | s3
# url = "http://127.0.0.1:9001"
# environment = "production"
# credential = { header = "Authorization", value = "Bearer ${LLM_KEY}" }

# [[issuer]]
# issuer = "https://idp.example"
# audience = "https://gate.example"
"""

_ORG = """\
# People, devices and assets as code. `doorward apply -f org.yaml` shows a plan, then makes it so.
users:
  dana: { roles: [data-scientist], projects: [fraud], employment: employee, clearance: 2 }
  bea: { roles: [business-user], employment: employee, clearance: 1 }
devices:
  laptop-7: { managed: true, compliant: true, owner: dana }
projects:
  fraud: { purposes: [fraud-model] }
zones:
  office: [10.0.0.0/8]
assets:
  Model::"llm/tiny": { owner: dana, sensitivity: 1, environment: production, projects: [fraud] }
"""


def register(app: typer.Typer) -> None:
    """Add `init`."""
    app.command("init")(guarded(init))


def init(
    directory: Annotated[Path, typer.Argument(help="Where to start; made if it does not exist.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Write a configuration, the schema, a starter pack and its passing tests."""
    wanted = {directory / "doorward.toml": _CONFIG, directory / "org.yaml": _ORG}
    packaged = files("doorward.policies")
    policies = directory / "policies"
    wanted[policies / "schema.cedarschema"] = packaged.joinpath("schema.cedarschema").read_text("utf-8")
    for relative, text in _texts(packaged.joinpath("packs", "starter"), Path()):
        wanted[policies / relative] = text
    standing = [file for file in wanted if file.exists()]
    if standing:
        raise ConflictError(
            f"{standing[0]} is already there; nothing was written",
            hint="Name an empty directory, or move that file away.",
        )
    for file, text in wanted.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    if as_json:
        emit_json({"written": [str(file) for file in wanted]})
        return
    for file in wanted:
        say(f"wrote {file}")
    say("")
    say(f"Next: cd {directory} && doorward test policies && doorward up")


def _texts(folder: Traversable, below: Path) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for item in sorted(folder.iterdir(), key=lambda one: one.name):
        if item.is_dir():
            found += _texts(item, below / item.name)
        elif item.name.endswith((".cedar", ".yaml", ".toml", ".md")):
            found.append((below / item.name, item.read_text("utf-8")))
    return found
