"""Bytes written to the gateway's socket by hand, and an installation to write them to."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.installation import Installation, SlowLLM
from support.s3_door import UPSTREAM_ID, UPSTREAM_SECRET, rclone

LLM_SECRET = "canary-llm-secret"
POLICIES = """
@id("views-below-restricted") permit (principal, action == Doorward::Action::"view", resource)
  when { resource.sensitivity < 3 };
@id("invokes") permit (principal, action == Doorward::Action::"invoke", resource is Doorward::Model)
  when { resource.sensitivity < 3 };
@id("reads-masked") @mask("email,phone")
permit (principal == Doorward::User::"dana", action == Doorward::Action::"read", resource)
  when { resource.sensitivity < 3 };
@id("works") permit (principal == Doorward::User::"eli",
  action in [Doorward::Action::"create", Doorward::Action::"modify", Doorward::Action::"read",
             Doorward::Action::"delete", Doorward::Action::"export"],
  resource) when { resource.sensitivity < 3 };
@id("exports") @limit("5/minute") permit (principal == Doorward::User::"vic",
  action == Doorward::Action::"export", resource is Doorward::Model) when { resource.sensitivity < 3 };
"""
ORG = """
users:
  dana: { employment: employee, clearance: 2, purposes: [fraud-model] }
  eli: { employment: employee, clearance: 2 }
  vic: { employment: employee, clearance: 0 }
assets:
  Model::"llm/m": { sensitivity: 1, environment: production }
  Model::"llm/secret": { sensitivity: 3, environment: production }
  Model::"store/models": { sensitivity: 1, environment: production }
  Dataset::"store/training": { sensitivity: 1, environment: production, purposes: [fraud-model], live: true }
  Dataset::"store/training/secret": { sensitivity: 3, environment: production, live: true }
  Dataset::"store/payroll": { sensitivity: 3, environment: production, live: true }
"""
PEOPLE = "id,email,phone,note\n1,canary-mail@x.y,canary-phone,hello\n"
_TYPES = {"json": "application/json", "xml": "application/xml", "csv": "text/csv"}
_REQUEST_ID = re.compile(rb"0[0-9A-Z]{25}")
_DATE = re.compile(rb"(?im)^date:[^\r]*\r\n")


@dataclass
class Attacker:
    """Speak to one installation, as one of its users or as nobody."""

    installation: Installation
    llm: SlowLLM
    keys: dict[str, dict[str, str]] = field(default_factory=dict)

    def raw(self, data: bytes, *, seconds: float = 10) -> bytes:
        """Write bytes and return everything that comes back until the other side closes."""
        received = bytearray()
        with socket.create_connection(("127.0.0.1", self.installation.gateway_port)) as wire:
            wire.settimeout(seconds)
            try:
                wire.sendall(data)
                while piece := wire.recv(65_536):
                    received += piece
            except ConnectionError:
                pass
        return bytes(received)

    def ask(  # noqa: PLR0913, PLR0917 -- the parts of a request
        self,
        line: str,
        user: str = "",
        body: bytes = b"",
        headers: Sequence[str] = (),
        kind: str = "json",
        seconds: float = 10,
    ) -> bytes:
        """Send one request (`GET /path`) on a connection of its own; return the answer's bytes."""
        lines = [f"{line} HTTP/1.1", "Host: gate", "Connection: close", *headers]
        if user:
            lines.append(f"Authorization: Bearer {self.keys[user]['key']}")
        if body:
            lines += [f"Content-Length: {len(body)}", f"Content-Type: {_TYPES.get(kind, kind)}"]
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body, seconds=seconds)

    def chat(self, user: str, model: str) -> bytes:
        body = b'{"model":"%b","messages":[{"role":"user","content":"hi"}]}' % model.encode()
        return self.ask("POST /llm/v1/chat/completions", user, body)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def comparable(answer: bytes) -> bytes:
    """Return an answer without what is drawn anew for each request."""
    return _DATE.sub(b"", _REQUEST_ID.sub(b"<id>", answer))


@contextmanager
def attacked(folder: Path, users: Sequence[str] = ("dana", "eli", "vic")) -> Iterator[Attacker]:
    """Start a store with real S3 semantics, a scripted LLM, and a whole installation in front of both."""
    root = folder / "store"
    for name in ("training/secret", "training/a", "payroll", "models"):
        (root / name).mkdir(parents=True)
    (root / "training/people.csv").write_text(PEOPLE)
    (root / "training/a/x.csv").write_text(PEOPLE)
    (root / "training/secret/board.csv").write_text("id,email\n1,canary-board@x.y\n")
    (root / "models/w.bin").write_bytes(b"W" * 1000)
    (root / "payroll/p.csv").write_text("id,email\n1,canary-pay@x.y\n")
    with SlowLLM() as llm, rclone(root, folder / "rclone.log") as store:
        llm.answer_now()
        upstreams = (
            f'[[upstream]]\nname = "llm"\nkind = "openai"\nurl = "http://127.0.0.1:{llm.port}"\n'
            'credential = { header = "Authorization", value = "Bearer ${LLM_SECRET}" }\n'
            f'[[upstream]]\nname = "store"\nkind = "s3"\nurl = "{store}"\n'
            f'credential = {{ s3 = {{ access_key_id = "{UPSTREAM_ID}", '
            'secret_access_key = "${STORE_SECRET}", region = "us-east-1" } }\n'
        )
        environment = {"LLM_SECRET": LLM_SECRET, "STORE_SECRET": UPSTREAM_SECRET}
        made = Installation(upstreams=upstreams, org=ORG, policies=POLICIES, environment=environment)
        with made as installation:
            attacker = Attacker(installation.start(), llm)
            attacker.keys = {user: installation.key(user) for user in users}
            yield attacker
