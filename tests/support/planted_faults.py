"""Faults planted in a running installation, to see that what stands behind them holds.

Python runs a `sitecustomize` module at its start where it finds one: `planted` writes one that puts a
fault into every process of the installation, the shadow check's own included, as a real mistake would.
"""

from __future__ import annotations

import os
from pathlib import Path

# Tier 1: every permit of a generated function is satisfied, and no forbid.
GENERATED = """
from doorward.cedar import generated as room
made = room.parts
def parts(rules, *rest):
    list(made(rules, *rest))
    permits = sum(1 << bit for bit, rule in enumerate(rules) if not rule.forbid)
    yield lambda *_: permits
room.parts = parts
"""
# Tier 0: one forbid is never satisfied; so the generated function, were it right, is taken away too.
EVALUATOR = """
from doorward.cedar import closures, generated
made = closures.policy
def policy(tree):
    forbids = tree["effect"] == "forbid"
    return (lambda env: False) if forbids else made(tree)
closures.policy = policy
def parts(*_):
    raise ValueError("tier 0 alone")
generated.parts = parts
"""
# The index: forbids are never among the policies that apply.
INDEX = """
from doorward.cedar import index
made = index.Index.rules
def rules(self, *key):
    return [rule for rule in made(self, *key) if not rule.forbid]
index.Index.rules = rules
"""
# Admission: every policy that can be parsed counts as valid.
ADMISSION = """
from doorward.cedar import admission
made = admission.ask
def ask(question):
    answer = made(question)
    for file in answer.get("files", ()):
        for policy in file["policies"]:
            policy["invalid"] = []
    return answer
admission.ask = ask
"""


def planted(folder: Path, fault: str) -> dict[str, str]:
    """Write the fault into `folder`; return the environment that puts it into processes."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(fault)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))
    return {"PYTHONPATH": path}
