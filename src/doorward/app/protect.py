"""Write what puts one open system behind Doorward: its upstream section, a first policy, the next steps."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from doorward.cedar.admission import PolicySource, admit
from doorward.core.errors import ConflictError, InvalidConfigError, InvalidRequestError
from doorward.policies.workspace import packaged_schema
from doorward.settings import UpstreamSettings

DEFAULT_NAMES = {"openai": "llm", "mlflow": "registry", "s3": "store"}

_POLICIES = {
    "openai": """\
// Who talks to the models of `{name}`. Written by `doorward protect`; it is yours now.
@id("{name}-users-invoke")
@doc("People and services with the role {name}-user talk to the models of {name}.")
permit (
  principal in Doorward::Role::"{name}-user",
  action in [Doorward::Action::"view", Doorward::Action::"invoke"],
  resource in Doorward::Upstream::"{name}"
);
""",
    "mlflow": """\
// Who works with the registry `{name}`. Written by `doorward protect`; it is yours now.
@id("{name}-readers-read")
@doc("The role {name}-reader sees and reads runs and models.")
permit (
  principal in Doorward::Role::"{name}-reader",
  action in [Doorward::Action::"view", Doorward::Action::"read"],
  resource in Doorward::Upstream::"{name}"
);

@id("{name}-builders-change")
@doc("The role {name}-builder records runs and changes models.")
permit (
  principal in Doorward::Role::"{name}-builder",
  action in
    [Doorward::Action::"view",
     Doorward::Action::"read",
     Doorward::Action::"create",
     Doorward::Action::"modify"],
  resource in Doorward::Upstream::"{name}"
);

@id("{name}-releasers-deploy")
@doc("The role {name}-releaser brings a model to a deployed stage or alias.")
permit (
  principal in Doorward::Role::"{name}-releaser",
  action in [Doorward::Action::"view", Doorward::Action::"deploy"],
  resource in Doorward::Upstream::"{name}"
);
""",
    "s3": """\
// Who reads and writes the store `{name}`. Written by `doorward protect`; it is yours now.
@id("{name}-readers-read")
@doc("The role {name}-reader reads what is in the store.")
permit (
  principal in Doorward::Role::"{name}-reader",
  action in [Doorward::Action::"view", Doorward::Action::"read"],
  resource in Doorward::Upstream::"{name}"
);

@id("{name}-writers-write")
@doc("The role {name}-writer puts objects into the store and replaces them.")
permit (
  principal in Doorward::Role::"{name}-writer",
  action in [Doorward::Action::"view", Doorward::Action::"create", Doorward::Action::"modify"],
  resource in Doorward::Upstream::"{name}"
);
""",
}
_ROLES = {"openai": ("user",), "mlflow": ("reader", "builder", "releaser"), "s3": ("reader", "writer")}
_ASSETS = {"openai": ("Model",), "mlflow": ("Model", "Dataset"), "s3": ("Dataset",)}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written where, and what remains to be done by hand."""

    config: Path
    config_text: str
    policy: Path
    policy_text: str
    steps: tuple[str, ...]
    done: bool

    def write(self) -> list[Path]:
        """Write both files whole; return what changed. What is already so stays untouched."""
        written = []
        for file, text in ((self.policy, self.policy_text), (self.config, self.config_text)):
            if not file.exists() or file.read_text("utf-8") != text:
                file.parent.mkdir(parents=True, exist_ok=True)
                draft = file.with_name(f".{file.name}.{os.getpid()}")
                draft.write_text(text, encoding="utf-8")
                draft.replace(file)
                written.append(file)
        return written


def plan(kind: str, url: str, *, name: str, config: Path, environment: str = "production") -> Plan:
    """Plan the protection of one system; nothing is written yet.

    Raises InvalidRequestError for a kind, name or URL that cannot be, InvalidConfigError for a
    configuration that cannot be read, ConflictError when another upstream or policy file has that name.
    """
    if kind not in DEFAULT_NAMES:
        raise InvalidRequestError(
            f"`{kind}` is not a kind that `protect` knows", hint=f"Known: {', '.join(DEFAULT_NAMES)}."
        )
    _require_valid(kind, url, name, environment)
    before = config.read_text("utf-8") if config.exists() else ""
    document = _parsed(before, config)
    policy = _policy_directory(document, config) / f"{name}.cedar"
    standing = next((one for one in document.get("upstream", ()) if one.get("name") == name), None)
    if standing is not None:
        if (standing.get("kind"), standing.get("url")) != (kind, url):
            raise ConflictError(
                f"{config} already has an upstream `{name}`: {standing.get('kind')} at {standing.get('url')}",
                hint="Choose another name with --name, or edit that section.",
            )
        text = before
    else:
        text = _joined(before, _section(kind, url, name, environment))
        _parsed(text, config)
    return Plan(
        config=config,
        config_text=text,
        policy=policy,
        policy_text=_policy_text(kind, name, policy, mine=standing is not None),
        steps=tuple(_steps(kind, url, name)),
        done=standing is not None and policy.exists(),
    )


def _require_valid(kind: str, url: str, name: str, environment: str) -> None:
    try:
        UpstreamSettings.model_validate({"name": name, "kind": kind, "url": url, "environment": environment})
    except ValidationError as reason:
        first = reason.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(
            f"{where}: {message}", hint="doorward protect openai http://127.0.0.1:8000"
        ) from None


def _parsed(text: str, config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as reason:
        raise InvalidConfigError(
            f"{config}: {reason}",
            hint="Upstreams are written as [[upstream]] sections at the end of the file.",
        ) from reason


def _policy_directory(document: dict[str, Any], config: Path) -> Path:
    section = document.get("policies")
    named = section.get("path", "policies") if isinstance(section, dict) else "policies"
    return config.parent / str(named)


def _policy_text(kind: str, name: str, policy: Path, *, mine: bool) -> str:
    """Return the starter policy, or the file as it stands once the upstream is ours."""
    text = _POLICIES[kind].format(name=name)
    admit([PolicySource(policy.name, text, guardrail=False)], packaged_schema())
    if not policy.exists():
        return text
    standing = policy.read_text("utf-8")
    if standing != text and not mine:
        raise ConflictError(
            f"{policy} is already there and says something else; nothing was written",
            hint="Move it away, or choose another name with --name.",
        )
    return standing


def _variable(name: str, suffix: str) -> str:
    return f"{name.upper().replace('-', '_')}_{suffix}"


def _section(kind: str, url: str, name: str, environment: str) -> str:
    lines = ["[[upstream]]", f'name = "{name}"', f'kind = "{kind}"', f"url = {json.dumps(url)}"]
    lines.append(f'environment = "{environment}"')
    match kind:
        case "openai":
            value = f"Bearer ${{{_variable(name, 'KEY')}}}"
            lines.append(f'credential = {{ header = "Authorization", value = "{value}" }}')
        case "s3":
            secret = f"${{{_variable(name, 'SECRET')}}}"
            pair = f'access_key_id = "doorward", secret_access_key = "{secret}", region = "us-east-1"'
            lines.append(f"credential = {{ s3 = {{ {pair} }} }}")
        case _:
            lines.append("# closed by a Unix socket: see the steps `doorward protect` printed")
    return "\n".join(lines) + "\n"


def _joined(before: str, section: str) -> str:
    if not before:
        return "# Doorward's configuration. Secrets stand here only by reference.\n\n" + section
    return before.rstrip("\n") + "\n\n" + section


def _steps(kind: str, url: str, name: str) -> list[str]:
    """Return what is left to do by hand, in order."""
    asset = "{ owner: YOU, sensitivity: 1, environment: production }"
    roles = ", ".join(f"{name}-{role}" for role in _ROLES[kind])
    steps = [*_closing(kind, url, name)]
    steps += [f'org.yaml, under assets:  {what}::"{name}": {asset}' for what in _ASSETS[kind]]
    steps.append(f"org.yaml, under users:   YOU: {{ roles: [{roles}] }}   then: doorward apply -f org.yaml")
    steps.append("doorward up   (and `doorward doctor` says what still stands open)")
    return steps


def _closing(kind: str, url: str, name: str) -> list[str]:
    match kind:
        case "openai":
            key = _variable(name, "KEY")
            return [
                f"export {key}=$(openssl rand -hex 24)   (for the model server and for Doorward alone)",
                f'restart the model server on 127.0.0.1 with that key: --api-key "${key}" (vLLM, llama.cpp)',
            ]
        case "mlflow":
            if url.startswith("unix:"):
                return ["keep that socket in a directory only MLflow's and Doorward's account may enter"]
            return [
                (
                    "restart MLflow on a socket instead of its port: "
                    'mlflow server ... --uvicorn-opts "--uds /run/mlflow/mlflow.sock"'
                ),
                'then set url = "unix:/run/mlflow/mlflow.sock" in the section just written',
            ]
        case _:
            secret = _variable(name, "SECRET")
            return [
                f"export {secret}=$(openssl rand -hex 24)   (for the store and for Doorward alone)",
                f'give the store that one key pair: rclone serve s3 ... --auth-key "doorward,${secret}"',
            ]
