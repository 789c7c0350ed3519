"""The rules in Rego, run by regorus: one `permit` or `forbid` rule body each."""

from __future__ import annotations

import json
from typing import Any

import regorus
from timing import Decide, Rules, main

_TESTS = {
    "clearance": "input.resource.sensitivity <= input.principal.clearance",
    "clearance mfa": "input.resource.sensitivity <= input.principal.clearance; input.context.mfa",
    "clearance managed": "input.resource.sensitivity <= input.principal.clearance; input.context.managed",
    "risk below": "input.context.risk < {number}",
    "owner": "input.resource.owner == input.principal.id",
    "department": 'input.principal.department == "d{number}"; input.resource.sensitivity == 0',
    "outside": 'not startswith(input.context.ip, "10.")',
    "contractor": 'endswith(input.principal.email, "@contractor.example")',
    "unmanaged": "not input.context.managed; input.resource.sensitivity >= 3",
    "risk above": "input.context.risk > {number}",
}


def body(rule: dict[str, Any]) -> str:
    """Translate one rule."""
    parts = [f'input.action == "{rule["action"]}"']
    who = f'input.principal.id == "{rule["user"]}"'
    parts.append(who if rule["user"] else f'"{rule["role"]}" in input.principal.roles')
    parts += [
        f'input.resource.{key} == "{rule[name]}"'
        for key, name in (("project", "project"), ("kind", "kind"), ("id", "asset"))
        if rule[name]
    ]
    return f"{rule['effect']} if {{ " + "; ".join([*parts, _TESTS[rule["test"]].format(**rule)]) + " }"


def build(rules: Rules) -> Decide:
    """Parse one module that holds all rules."""
    engine = regorus.Engine()
    text = ["package bench", "import rego.v1", "default permit := false", "default forbid := false"]
    text += [*map(body, rules), "default allow := false", "allow if { permit; not forbid }"]
    engine.add_policy("bench.rego", "\n".join(text))

    def decide(request: str) -> bool:
        engine.set_input_json(request)
        return engine.eval_rule("data.bench.allow") is True

    return decide


if __name__ == "__main__":
    main(build, json.dumps)
