"""Say why a condition did not hold, as a colleague would: for those who may know everything of a decision.

What a caller is told of her own denial stands in `explaining`; nothing here is meant for her.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from doorward.cedar.env import Env
from doorward.cedar.scope import Side
from doorward.cedar.witness import Clause, value
from doorward.cedar.words import written
from doorward.core.model import EntityUid
from doorward.decisions.grid import duration

_DEVICE = {
    "known": "the device is not known",
    "proven": "the device did not show its certificate",
    "managed": "the device is not managed",
    "compliant": "the device is not compliant",
}
# Whose device nobody knows is not managed either: one thing is missing, not three.
_NO_DEVICE = "no device showed a certificate"
_NEEDED = {
    "<": " (it must be below {})", "<=": " (it may be at most {})", ">": " (it must be above {})",
    ">=": " (it must be at least {})", "==": ", not {}", "!=": ", and must not be",
}  # fmt: skip
_TIMES = {"<": " (it must be before {})", ">": " (it must be after {})"}
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_MEMBERS = {
    "Role": "does not hold the role {}",
    "Group": "is not in the group {}",
    "Project": "is not in the project {}",
}
_MISSING = "missing"


def phrase(clause: Clause, env: Env) -> str:
    """Return why one clause did not hold."""
    if clause.error:
        return f"`{clause.text}` cannot be evaluated ({clause.error})"
    if clause.unless:
        return f"`{written(clause.tree)}` holds"
    return _said(clause.tree, env)


def for_whom(side: Side, principal: EntityUid) -> str:
    """Return why a policy does not speak of a principal: whom it is for."""
    if side.equal is not None:
        return f"it is for {side.equal} alone"
    if side.within is not None:
        return f"{principal.id} {_member(side.within)}"
    kind = str(side.type).rpartition("::")[2]
    return f"it is for {kind.lower()}s, and {principal.id} is a {principal.kind.lower()}"


def listed(parts: Iterable[str], last: str = "and") -> str:
    """Return `a`, `a and b`, `a, b and c`; with a comma more where the parts have some of their own."""
    *most, end = parts
    comma = "," if any("," in part or "(" in part for part in (*most, end)) else ""
    return f"{', '.join(most)}{comma} {last} {end}" if most else end


def _said(tree: Mapping[str, Any], env: Env) -> str:  # noqa: PLR0911 -- one case per form
    match tree:
        case {"&&": {"left": left, "right": right}}:
            return listed([_said(left, env), _said(right, env)], "or")
        case {"||": {"left": left, "right": right}}:
            return f"{listed([_said(left, env), _said(right, env)])} (either would do)"
        case {".": {"left": {".": {"left": {"Var": "context"}, "attr": "device"}}, "attr": name}} if (
            name in _DEVICE
        ):
            return _DEVICE[name] if _device_known(env) else _NO_DEVICE
        case {".": {"left": {".": {"left": {"Var": "context"}, "attr": "session"}}, "attr": "mfa"}} | {
            "has": {"left": {".": {"left": {"Var": "context"}, "attr": "session"}}, "attr": "mfa_age"}
        }:
            return "the sign-in had no MFA"
        case {"has": {"left": {"Var": "context"}, "attr": "purpose"}}:
            return "no purpose is stated"
        case {"has": {"left": left, "attr": name}}:
            return f"{_owner(left, env)} has no {_plain(name)}"
        case {"in": {"left": {"Var": "principal"}, "right": {"Value": {"__entity": group}}}}:
            return f"{env.principal.id} {_member(EntityUid(group['type'], group['id']))}"
        case {"in": {"left": {"Var": "resource"}, "right": {"Value": {"__entity": group}}}}:
            return f"{env.resource} is not in {EntityUid(group['type'], group['id'])}"
        case {"contains": {"left": left, "right": right}}:
            return f"{_place(left, env)} {_worth(left, env)} do not include {_worth(right, env)}"
    return _compared(tree, env) or _other(tree, env)


def _compared(tree: Mapping[str, Any], env: Env) -> str | None:
    """Return a comparison of an attribute with anything else in words, None for another form."""
    ((form, body),) = tree.items()
    if form not in _NEEDED:
        return None
    left, right = body["left"], body["right"]
    if "." not in left:
        left, right, form = right, left, _FLIPPED[form]
    if "." not in left:
        return None
    name, is_, wanted = left["."]["attr"], value(left, env), value(right, env)
    if name in {"age", "mfa_age"} and is_.isdigit() and wanted.isdigit():
        how = "the sign-in with MFA" if name == "mfa_age" else "the sign-in"
        needed = _NEEDED[form].format(duration(int(wanted)))
        return f"{how} is {_rounded(int(is_))} old{needed}"
    needed = (_TIMES if is_.endswith(" UTC") else {}).get(form, _NEEDED[form])
    return f"{_place(left, env)} is {_named(is_)}{needed.format(_named(wanted))}"


def _other(tree: Mapping[str, Any], env: Env) -> str:
    match tree:
        case {".": {"left": left, "attr": name}}:
            return f"{_owner(left, env)} is not {_plain(name)}"
        case {"!": {"arg": {".": {"left": left, "attr": name}}}}:
            return f"{_owner(left, env)} is {_plain(name)}"
        case {"!": {"arg": inner}}:
            return f"`{written(inner)}` holds"
    return f"`{written(tree)}` does not hold"


def _member(group: EntityUid) -> str:
    return _MEMBERS.get(group.kind, f"is not in {group.kind.lower()} {{}}").format(group.id)


def _place(tree: Mapping[str, Any], env: Env) -> str:
    match tree:
        case {".": {"left": {"Var": "context"}, "attr": name}}:
            return "the time" if name == "now" else f"the {_plain(name)}"
        case {".": {"left": {".": {"left": {"Var": "context"}, "attr": "network"}}, "attr": "zone"}}:
            return "the network zone"
        case {".": {"left": left, "attr": name}}:
            return f"{_owner(left, env)}'s {_plain(name)}"
    return f"`{written(tree)}`"


def _owner(tree: Mapping[str, Any], env: Env) -> str:
    match tree:
        case {"Var": "principal"}:
            return env.principal.id
        case {"Var": "resource"}:
            return f"the {env.resource.kind.lower()}"
        case {"Var": "context"}:
            return "the request"
    return _place(tree, env)


def _worth(tree: Mapping[str, Any], env: Env) -> str:
    return value(tree, env)


def _device_known(env: Env) -> bool:
    return (
        value({".": {"left": {".": {"left": {"Var": "context"}, "attr": "device"}}, "attr": "known"}}, env)
        == "true"
    )


def _named(text: str) -> str:
    """Return an entity by its name alone: which type it has is plain from the attribute."""
    kind, separator, name = text.partition('::"')
    return name.removesuffix('"') if separator and kind.isalnum() else text


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _rounded(seconds: int) -> str:
    """Return an age in a unit that is read at a glance."""
    for size in (86_400, 3600, 60):
        if seconds >= size:
            return duration(seconds // size * size)
    return duration(seconds)
