"""The rules in vakt: its own rule classes for comparisons between two attributes, `RulesChecker`."""

from __future__ import annotations

from typing import Any

import vakt
from timing import Decide, Rules, main
from vakt.rules import CIDR, EndsWith, Eq, Greater, GreaterOrEqual, Less, Not
from vakt.rules import Any as Anything
from vakt.rules.base import Rule


class HasRole(Rule):  # type: ignore[misc]  # vakt is untyped
    """One of the subject's roles is this one."""

    def __init__(self, role: str) -> None:
        """Take the role."""
        self.role = role

    def satisfied(self, what: Any, inquiry: Any = None) -> bool:  # noqa: ARG002 -- vakt's signature
        """Look it up."""
        return self.role in what


class Cleared(Rule):  # type: ignore[misc]  # vakt is untyped
    """The resource's sensitivity is within the subject's clearance."""

    def satisfied(self, what: Any, inquiry: Any = None) -> bool:
        """Compare the two."""
        return bool(what <= inquiry.subject["clearance"])


class OwnedBySubject(Rule):  # type: ignore[misc]  # vakt is untyped
    """The resource's owner is the subject."""

    def satisfied(self, what: Any, inquiry: Any = None) -> bool:
        """Compare the two."""
        return bool(what == inquiry.subject["id"])


def policy(number: int, rule: dict[str, Any]) -> vakt.Policy:  # noqa: C901 -- one case a kind of rule
    """Translate one rule."""
    subject: dict[str, Any] = {"id": Eq(rule["user"])} if rule["user"] else {"roles": HasRole(rule["role"])}
    resource: dict[str, Any] = {
        key: Eq(rule[name])
        for key, name in (("project", "project"), ("kind", "kind"), ("id", "asset"))
        if rule[name]
    }
    context: dict[str, Any] = {}
    match rule["test"]:
        case "clearance":
            resource["sensitivity"] = Cleared()
        case "clearance mfa":
            resource["sensitivity"], context["mfa"] = Cleared(), Eq(True)  # noqa: FBT003 -- vakt's signature
        case "clearance managed":
            resource["sensitivity"], context["managed"] = Cleared(), Eq(True)  # noqa: FBT003 -- same
        case "risk below":
            context["risk"] = Less(rule["number"])
        case "owner":
            resource["owner"] = OwnedBySubject()
        case "department":
            subject["department"], resource["sensitivity"] = Eq(f"d{rule['number']}"), Eq(0)
        case "outside":
            context["ip"] = Not(CIDR("10.0.0.0/8"))
        case "contractor":
            subject["email"] = EndsWith("@contractor.example")
        case "unmanaged":
            context["managed"], resource["sensitivity"] = Eq(False), GreaterOrEqual(3)  # noqa: FBT003 -- same
        case "risk above":
            context["risk"] = Greater(rule["number"])
    return vakt.Policy(
        number,
        actions=[Eq(rule["action"])],
        subjects=[subject],
        resources=[resource or Anything()],
        effect=vakt.ALLOW_ACCESS if rule["effect"] == "permit" else vakt.DENY_ACCESS,
        context=context,
    )


def build(rules: Rules) -> Decide:
    """Load all policies into memory."""
    storage = vakt.MemoryStorage()
    for number, rule in enumerate(rules):
        storage.add(policy(number, rule))
    return vakt.Guard(storage, vakt.RulesChecker()).is_allowed  # type: ignore[no-any-return]  # untyped


def inquiry(request: dict[str, Any]) -> vakt.Inquiry:
    """Return a request as vakt takes it."""
    return vakt.Inquiry(
        subject=request["principal"],
        action=request["action"],
        resource=request["resource"],
        context=request["context"],
    )


if __name__ == "__main__":
    main(build, inquiry)
