"""The story's Doorward: a generated configuration, real processes, people, keys and devices."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doorward.demo.management import manage, ready
from doorward.demo.processes import Server, free_port
from doorward.demo.upstreams import LanguageModel, Registry, Secrets, Store
from doorward.policies import packs

GATEWAY_PORT, CONTROL_PORT = 8640, 8641
_START = 90.0
_GRACE = 25.0

_CONFIG = """\
# Written by `doorward demo`. Secrets stand here by reference alone.
[gateway]
listen = "127.0.0.1:{gateway}"
tls = "auto"

[control]
listen = "127.0.0.1:{control}"
local_operator = "full"

[[upstream]]
name = "llm"
kind = "openai"
url = "{llm}"
credential = {{ header = "Authorization", value = "Bearer ${{DEMO_LLM_KEY}}" }}

[[upstream]]
name = "registry"
kind = "mlflow"
url = "unix:{registry}"

[[upstream]]
name = "store"
kind = "s3"
url = "{store}"
credential = {{ s3 = {{ access_key_id = "{store_id}", secret_access_key = "${{DEMO_STORE_SECRET}}" }} }}
"""

ORG = """\
users:
  dana: { roles: [data-scientist], projects: [fraud], purposes: [fraud-model, marketing], department: risk,
          employment: employee, clearance: 2, email: dana@example.com }
  omar: { roles: [asset-owner], employment: employee, clearance: 3 }
  eli:  { roles: [data-engineer], projects: [fraud], employment: employee, clearance: 2 }
  rhea: { roles: [release-manager], projects: [fraud], employment: employee, clearance: 2 }
  bea:  { roles: [business-user], employment: employee, clearance: 1 }
services:
  etl-test: { owner: omar, environment: testing, roles: [ingestion], projects: [fraud], clearance: 2 }
devices:
  laptop-7: { managed: true, compliant: true, owner: dana }
  laptop-omar: { managed: true, compliant: true, owner: omar }
  laptop-eli: { managed: true, compliant: true, owner: eli }
  laptop-rhea: { managed: true, compliant: true, owner: rhea }
  laptop-bea: { managed: true, compliant: true, owner: bea }
  runner-3: { managed: true, compliant: true, owner: omar }
projects:
  fraud: {}
zones:
  this-machine: [127.0.0.0/8]
assets:
  Dataset::"store/training": { owner: omar, sensitivity: 2, environment: production, live: true,
                               purposes: [fraud-model], projects: [fraud] }
  Model::"store/models": { owner: omar, sensitivity: 2, environment: production, projects: [fraud] }
  Model::"registry/fraud-detector": { owner: omar, sensitivity: 2, environment: production,
                                      projects: [fraud] }
  Model::"llm/smollm2": { owner: omar, sensitivity: 1, environment: production }
"""


@dataclass(frozen=True, slots=True)
class Device:
    """A device's certificate, its key, and both in one file for clients that want that."""

    certificate: Path
    key: Path
    both: Path


@dataclass(frozen=True, slots=True)
class Key:
    """One issued key, as bearer and as S3 pair."""

    id: str
    text: str
    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        """Name the key without its secrets."""
        return f"Key({self.id})"


class Installation:
    """Doorward in a directory of its own."""

    def __init__(self, work: Path, keys: Secrets) -> None:
        """Choose ports (the usual ones if they are free) and places; nothing runs yet."""
        self.home = work / "doorward"
        self.home.mkdir(mode=0o700)
        self.data = self.home / "data"
        self.config = self.home / "doorward.toml"
        self.org = self.home / "org.yaml"
        self.ca = self.home / "ca.pem"
        self.gateway_port = free_port(GATEWAY_PORT)
        self.control_port = free_port(CONTROL_PORT)
        self.logs = work / "logs"
        self.keys = keys
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Return the gateway's address."""
        return f"https://127.0.0.1:{self.gateway_port}"

    def write(self, *, llm: LanguageModel, registry: Registry, store: Store) -> None:
        """Write configuration, starter policies and org.yaml."""
        text = _CONFIG.format(
            gateway=self.gateway_port,
            control=self.control_port,
            llm=llm.url,
            registry=registry.socket,
            store=store.url,
            store_id=self.keys.store_id,
        )
        self.config.write_text(text, encoding="utf-8")
        self.org.write_text(ORG, encoding="utf-8")
        for relative, policy in packs.files():
            file = self.home / "policies" / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(policy, encoding="utf-8")

    def start(self) -> None:
        """Run `doorward up`; returns at once."""
        self._server = Server(
            "doorward",
            [
                sys.executable,
                "-m",
                "doorward.cli",
                "up",
                "--config",
                str(self.config),
                "--data",
                str(self.data),
            ],
            log=self.logs / "doorward.log",
            environment={"DEMO_LLM_KEY": self.keys.llm_key, "DEMO_STORE_SECRET": self.keys.store_secret},
            directory=self.home,
            grace=_GRACE,
        )

    def wait(self) -> None:
        """Return once both roles are ready."""
        assert self._server is not None  # noqa: S101 -- for types: start comes first
        sockets = [self.data / "control.sock", self.data / "gateway.sock"]
        self._server.wait_until(lambda: all(ready(socket) for socket in sockets), seconds=_START)

    def stop(self) -> None:
        """Stop all roles in order."""
        if self._server is not None:
            self._server.stop()

    def apply(self) -> int:
        """Apply org.yaml; return how many things changed."""
        body = {"org": self.org.read_text("utf-8"), "source": self.org.name}
        return len(self._manage("POST", "apply", body)["plan"])

    def key(self, **bounds: str) -> Key:
        """Issue a key: `user` or `service`, and what binds it."""
        made = self._manage("POST", "keys", bounds)
        return Key(made["id"], made["key"], made["access_key_id"], made["secret_access_key"])

    def revoke(self, key: Key) -> None:
        """Revoke a key."""
        self._manage("DELETE", f"keys/{key.id}", None)

    def enrol(self, name: str) -> Device:
        """Issue a device's client certificate and keep its files, private ones for this user alone."""
        made = self._manage("POST", f"devices/{name}/certificate", {})
        self.ca.write_text(made["ca"], encoding="ascii")
        place = self.home / "devices"
        place.mkdir(mode=0o700, exist_ok=True)
        device = Device(place / f"{name}.crt", place / f"{name}.key", place / f"{name}.pem")
        for file, content in (
            (device.certificate, made["certificate"]),
            (device.key, made["key"]),
            (device.both, made["key"] + made["certificate"]),
        ):
            file.touch(mode=0o600)
            file.write_text(content, encoding="ascii")
        return device

    def console_link(self) -> str:
        """Return a one-time link that opens the console for a look."""
        return str(self._manage("POST", "admin/link", {"kind": "session"})["url"])

    def _manage(self, method: str, noun: str, body: object) -> Any:
        return manage(self.data / "control.sock", method, f"/api/v1/{noun}", body)
