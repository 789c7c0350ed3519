"""The rules in Cerbos: one resource policy a kind, conditions in CEL, asked over loopback HTTP."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import Decide, Rules, main

_TESTS = {
    "clearance": "R.attr.sensitivity <= P.attr.clearance",
    "clearance mfa": "R.attr.sensitivity <= P.attr.clearance && R.attr.context.mfa",
    "clearance managed": "R.attr.sensitivity <= P.attr.clearance && R.attr.context.managed",
    "risk below": "R.attr.context.risk < {number}",
    "owner": "R.attr.owner == P.id",
    "department": 'P.attr.department == "d{number}" && R.attr.sensitivity == 0',
    "outside": '!R.attr.context.ip.inIPAddrRange("10.0.0.0/8")',
    "contractor": 'P.attr.email.endsWith("@contractor.example")',
    "unmanaged": "!R.attr.context.managed && R.attr.sensitivity >= 3",
    "risk above": "R.attr.context.risk > {number}",
}
_KINDS = ("Model", "Dataset")


def _for_all(rule: dict[str, Any]) -> bool:
    # Cerbos allows what any one of the roles allows: a denial must be said for all of them.
    return rule["role"] is None or rule["effect"] == "forbid"


def condition(rule: dict[str, Any]) -> str:
    """Translate one rule's conditions."""
    parts = [f'P.id == "{rule["user"]}"'] if rule["user"] else []
    parts += [f'"{rule["role"]}" in P.attr.roles'] if rule["role"] and _for_all(rule) else []
    parts += [f'R.id == "{rule["asset"]}"'] if rule["asset"] else []
    parts += [f'R.attr.project == "{rule["project"]}"'] if rule["project"] else []
    return " && ".join([*parts, _TESTS[rule["test"]].format(**rule)])


def document(kind: str, rules: Rules) -> dict[str, Any]:
    """Return the policy of one kind of resource."""
    written = [
        {
            "actions": [rule["action"]],
            "effect": "EFFECT_ALLOW" if rule["effect"] == "permit" else "EFFECT_DENY",
            "roles": ["*" if _for_all(rule) else rule["role"]],
            "condition": {"match": {"expr": condition(rule)}},
        }
        for rule in rules
        if rule["kind"] in {None, kind}
    ]
    policy = {"version": "default", "resource": kind.lower(), "rules": written}
    return {"apiVersion": "api.cerbos.dev/v1", "resourcePolicy": policy}


def build(rules: Rules) -> Decide:
    """Start a server of its own on a Unix socket's folder and a free port, and keep one connection."""
    folder = Path(tempfile.mkdtemp(prefix="cerbos"))
    (folder / "policies").mkdir()
    for kind in _KINDS:
        (folder / f"policies/{kind}.json").write_text(json.dumps(document(kind, rules)))
    port = int(os.environ["CERBOS_PORT"])
    settings = {
        "server": {"httpListenAddr": f"127.0.0.1:{port}", "grpcListenAddr": f"unix:{folder}/grpc.sock"},
        "storage": {"driver": "disk", "disk": {"directory": str(folder / "policies")}},
        "telemetry": {"disabled": True},
    }
    (folder / "conf.json").write_text(json.dumps(settings))
    _start([os.environ["CERBOS"], "server", f"--config={folder}/conf.json", "--log-level=error"])
    connection = _connected(port)

    def decide(request: str) -> bool:
        connection.request("POST", "/api/check/resources", request, {"Content-Type": "application/json"})
        results = json.loads(connection.getresponse().read())["results"]
        return "EFFECT_ALLOW" in results[0]["actions"].values()

    return decide


def _start(command: list[str]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 -- a pinned program
    Path(os.environ["CERBOS_PID"]).write_text(str(process.pid))


def _connected(port: int) -> http.client.HTTPConnection:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/_cerbos/health")
            if connection.getresponse().read():
                return connection
        except OSError:
            time.sleep(0.05)
    message = "cerbos did not start"
    raise TimeoutError(message)


def message(request: dict[str, Any]) -> str:
    """Return a request as the server takes it."""
    who, what = request["principal"], request["resource"]
    principal = {"id": who["id"], "roles": who["roles"], "attr": who}
    resource = {
        "kind": what["kind"].lower(),
        "id": what["id"],
        "attr": {**what, "context": request["context"]},
    }
    return json.dumps(
        {"principal": principal, "resources": [{"resource": resource, "actions": [request["action"]]}]}
    )


if __name__ == "__main__":
    main(build, message)
