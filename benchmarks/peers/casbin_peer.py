"""The rules in pycasbin: an attribute-based model whose policies are expressions, forbid overrides."""

from __future__ import annotations

import logging
from typing import Any

import casbin
from casbin.util import ip_match_func
from timing import Decide, Rules, main

_MODEL = """
[request_definition]
r = sub, act, obj, ctx
[policy_definition]
p = rule, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.act == p.act && eval(p.rule)
"""
_TESTS = {
    "clearance": "r.obj['sensitivity'] <= r.sub['clearance']",
    "clearance mfa": "r.obj['sensitivity'] <= r.sub['clearance'] and r.ctx['mfa']",
    "clearance managed": "r.obj['sensitivity'] <= r.sub['clearance'] and r.ctx['managed']",
    "risk below": "r.ctx['risk'] < {number}",
    "owner": "r.obj['owner'] == r.sub['id']",
    "department": "r.sub['department'] == 'd{number}' and r.obj['sensitivity'] == 0",
    "outside": "not inside(r.ctx['ip'])",
    "contractor": "suffix(r.sub['email'])",
    "unmanaged": "not r.ctx['managed'] and r.obj['sensitivity'] >= 3",
    "risk above": "r.ctx['risk'] > {number}",
}


def expression(rule: dict[str, Any]) -> str:
    """Translate one rule."""
    parts = [f"r.sub['id'] == '{rule['user']}'" if rule["user"] else f"'{rule['role']}' in r.sub['roles']"]
    parts += [
        f"r.obj['{key}'] == '{rule[name]}'"
        for key, name in (("project", "project"), ("kind", "kind"), ("id", "asset"))
        if rule[name]
    ]
    return " and ".join([*parts, _TESTS[rule["test"]].format(number=rule["number"])])


def build(rules: Rules) -> Decide:
    """Load all policies into memory."""
    logging.disable(logging.CRITICAL)
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=_MODEL))
    enforcer.add_function("inside", lambda ip: ip_match_func(ip, "10.0.0.0/8"))
    enforcer.add_function("suffix", lambda email: email.endswith("@contractor.example"))
    enforcer.add_policies(
        [[expression(r), r["action"], "allow" if r["effect"] == "permit" else "deny"] for r in rules]
    )
    return lambda request: bool(enforcer.enforce(*request))


def arguments(request: dict[str, Any]) -> tuple[Any, ...]:
    """Return a request as casbin takes it."""
    return request["principal"], request["action"], request["resource"], request["context"]


if __name__ == "__main__":
    main(build, arguments)
