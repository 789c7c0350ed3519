"""`who-can` and `what-can` in words: the question as it is typed, the answer as JSON and as sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from doorward.core.context import Context
from doorward.core.decision import Change
from doorward.core.model import EntityUid
from doorward.decisions import search
from doorward.decisions.conditions import Condition
from doorward.decisions.point import Standpoint
from doorward.decisions.question import Question, answer, answered_among, request_of
from doorward.decisions.schema_actions import actions_of
from doorward.decisions.search import Finding, Group

_ANYBODY = 'User::""'
_ANYTHING = 'Control::"policies"'
_DEVICE = (("on a ", " device"), ("not on a ", " device"))

Sees = Callable[[EntityUid], bool]


class Circumstances(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fixed set of circumstances, as `can` takes them; with nothing given there are none."""

    context: dict[str, Any] = msgspec.field(default_factory=dict)
    device: str | None = None
    zone: str | None = None
    purpose: str | None = None
    mfa_age: int | None = None
    at: str | None = None

    @property
    def given(self) -> bool:
        """Return whether anything was said."""
        return self != Circumstances()


def who_can(
    action: str, resource: str, circumstances: Circumstances, standpoint: Standpoint, now: datetime
) -> dict[str, Any]:
    """Return who may do this: in three groups, or with circumstances given in two."""
    asked = _question(circumstances, action=action, resource=resource)
    request = request_of(asked, standpoint.snapshot, now)
    document = {"action": request.action.id, "resource": str(request.resource)}
    if circumstances.given:
        people = (
            (_allowed(msgspec.structs.replace(asked, principal=uid.cedar), standpoint, now), uid)
            for uid in search.principals_for(request.action, standpoint)
        )
        named = ((allowed, {"principal": str(uid)}) for allowed, uid in people)
        return document | _two(named, standpoint)
    findings = search.who_can(request.action, request.resource, standpoint, _neutral(asked, standpoint, now))
    return document | _three(findings, standpoint, lambda f: {"principal": str(f.principal)})


def what_can(
    principal: str,
    circumstances: Circumstances,
    standpoint: Standpoint,
    now: datetime,
    *,
    sees: Sees | None = None,
) -> dict[str, Any]:
    """Return what a principal may do to each registered resource, as `who_can`.

    With `sees`, resources it denies are left out as if they did not exist.
    """
    asked = _question(circumstances, principal=principal)
    uid = EntityUid.parse(principal)
    if circumstances.given:
        return {"principal": str(uid)} | _two(_things(uid, asked, standpoint, now, sees), standpoint)
    findings = [
        finding
        for finding in search.what_can(uid, standpoint, _neutral(asked, standpoint, now))
        if sees is None or sees(finding.resource)
    ]
    return {"principal": str(uid)} | _three(
        findings, standpoint, lambda f: {"action": f.action.id, "resource": str(f.resource)}
    )


def sentence(conditions: Iterable[Sequence[Any]]) -> str:
    """Return alternatives, as JSON has them, as one line for people."""
    return "; or ".join(_said([part["say"] for part in parts]) for parts in conditions)


def _question(circumstances: Circumstances, **named: str) -> Question:
    words: dict[str, Any] = {"principal": _ANYBODY, "action": "view", "resource": _ANYTHING, **named}
    return Question(**words, **msgspec.structs.asdict(circumstances))


def _neutral(asked: Question, standpoint: Standpoint, now: datetime) -> Callable[[EntityUid], Context]:
    def of(principal: EntityUid) -> Context:
        named = msgspec.structs.replace(asked, principal=principal.cedar)
        return request_of(named, standpoint.snapshot, now).context

    return of


def _things(
    principal: EntityUid, asked: Question, standpoint: Standpoint, now: datetime, sees: Sees | None
) -> Iterator[tuple[bool, dict[str, str]]]:
    """Yield whether each action on each registered resource is allowed, action by action."""
    for action, applies in actions_of(standpoint.bundle.schema).items():
        if principal.type not in applies.principals:
            continue
        resources = search.registered(standpoint, applies.resources)
        shown = [one for one in resources if sees is None or sees(one)]
        question = msgspec.structs.replace(asked, action=action.cedar)
        allowed = frozenset(answered_among(question, shown, standpoint, now))
        yield from ((one in allowed, {"action": action.id, "resource": str(one)}) for one in shown)


def _allowed(question: Question, standpoint: Standpoint, now: datetime) -> bool:
    return answer(question, standpoint, now, explain=False).allowed


def _two(answers: Iterable[tuple[bool, dict[str, str]]], standpoint: Standpoint) -> dict[str, Any]:
    groups: dict[bool, list[dict[str, str]]] = {True: [], False: []}
    for allowed, name in answers:
        groups[allowed].append(name)
    return {"allowed": groups[True], "denied": groups[False], **_versions(standpoint)}


def _three(
    findings: Iterable[Finding], standpoint: Standpoint, name: Callable[[Finding], dict[str, str]]
) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = {group.value: [] for group in Group}
    for finding in findings:
        entry: dict[str, Any] = dict(name(finding))
        if finding.group is Group.ONLY_IF:
            entry["conditions"] = [_changes(condition) for condition in finding.conditions]
            entry["say"] = sentence(entry["conditions"])
            if finding.outside:
                entry["outside"] = list(finding.outside)
        groups[finding.group].append(entry)
    return groups | _versions(standpoint)


def _changes(condition: Condition) -> list[dict[str, str]]:
    return [_change(change) for change in condition]


def _change(change: Change) -> dict[str, str]:
    return {"change": change.change, "say": change.say}


def _versions(standpoint: Standpoint) -> dict[str, Any]:
    return {"bundle": standpoint.bundle_digest, "entities": standpoint.entities_version}


def _said(parts: Sequence[str]) -> str:
    """Join the parts of one condition: `on a proven, managed device and for the purpose "x"`."""
    said: list[str] = []
    for before, after in _DEVICE:
        words = [p[len(before) : -len(after)] for p in parts if p.startswith(before) and p.endswith(after)]
        if words:
            said.append(f"{before}{', '.join(words)}{after}")
    rest = [p for p in parts if not p.startswith(tuple(before for before, _ in _DEVICE))]
    return " and ".join([*said, *rest])
