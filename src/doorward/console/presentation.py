"""How a decision reads on the page: plain values out of an audit record, nothing decided here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from doorward.core.errors import DoorwardError
from doorward.core.model import EntityUid

_WORDS = {
    "allowed": "Allowed",
    "denied": "Denied by policy",
    "unauthenticated": "Nobody proved who they are",
    "invalid_request": "The request could not be read in one way",
    "limit_exceeded": "A limit was reached",
    "not_found": "Hidden: answered as if it did not exist",
    "unavailable": "Something needed was not there",
    "audit_unavailable": "It could not be put on record",
    "insufficient_user_authentication": "A stronger sign-in is needed",
}
_DECISION = "decision"


@dataclass(frozen=True, slots=True)
class Name:
    """Show an entity as kind and name; text that is no entity stands as the name."""

    kind: str
    name: str

    @classmethod
    def of(cls, text: str) -> Name:
        """Read `User::"dana"`; anything else is shown as it stands."""
        try:
            uid = EntityUid.parse(text)
        except DoorwardError:
            return cls("", text)
        return cls(uid.kind, uid.id)


@dataclass(frozen=True, slots=True)
class Row:
    """Show one decision as a line."""

    request_id: str
    time: str
    allowed: bool
    word: str
    principal: Name
    action: str
    resource: Name
    upstream: str
    policy: str
    more_policies: int
    obligations: tuple[str, ...]

    @property
    def clock(self) -> str:
        """Return the time of day, UTC, to the second."""
        return self.time[11:19]

    @property
    def day(self) -> str:
        """Return the date, UTC."""
        return self.time[:10]


@dataclass(frozen=True, slots=True)
class Fact:
    """Show one name and its value in the details."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Why:
    """Show everything on record about one request."""

    row: Row
    detail: str
    determining: tuple[str, ...]
    errors: tuple[str, ...]
    advice: tuple[str, ...]
    would_allow: tuple[dict[str, str], ...]
    obligations: tuple[Fact, ...]
    checks: tuple[tuple[Name, str, Name, bool, tuple[str, ...]], ...]
    context: tuple[Fact, ...]
    request: tuple[Fact, ...]
    outcome: tuple[Fact, ...]
    versions: tuple[Fact, ...]


def row(record: dict[str, Any]) -> Row:
    """Return the line of one decision record."""
    determining = _texts(record.get("determining"))
    allowed = record.get("decision") == "allow"
    code = str(record.get("code") or ("allowed" if allowed else "denied"))
    return Row(
        request_id=str(record.get("request_id", "")),
        time=str(record.get("time", "")),
        allowed=allowed,
        word=_WORDS.get(code, code),
        principal=Name.of(str(record.get("principal") or "nobody")),
        action=str(record.get("action") or "-"),
        resource=Name.of(str(record.get("resource") or record.get("request", {}).get("path") or "-")),
        upstream=str(record.get("upstream") or ""),
        policy=determining[0] if determining else "",
        more_policies=max(0, len(determining) - 1),
        obligations=tuple(_obligation(item).name for item in record.get("obligations") or ()),
    )


def why(records: list[dict[str, Any]]) -> Why | None:
    """Return the details of one request from its records, or None when there is no decision among them."""
    decision = next((record for record in records if record.get("kind") == _DECISION), None)
    if decision is None:
        return None
    outcome = next((record for record in records if record.get("kind") == "outcome"), {})
    context = {name: value for name, value in decision.get("context", {}).items() if name != "now"}
    request = {
        **decision.get("request", {}),
        **{name: decision.get(name) for name in ("device", "purpose", "environment")},
        **{f"network.{key}": value for key, value in decision.get("network", {}).items()},
        **{f"session.{key}": value for key, value in decision.get("session", {}).items()},
    }
    versions = {
        "bundle": decision.get("bundle"),
        "entities": decision.get("entities"),
        "inputs": decision.get("inputs"),
        "record": decision.get("id"),
        "writer": f"{decision.get('writer', '')} #{decision.get('seq', '')}",
        "trace": decision.get("trace"),
    }
    return Why(
        row=row(decision),
        detail=str(decision.get("detail") or ""),
        determining=_texts(decision.get("determining")),
        errors=_texts(decision.get("errors")),
        advice=_texts(decision.get("advice")),
        would_allow=tuple(
            {"say": str(change.get("say", "")), "change": str(change.get("change", ""))}
            for change in decision.get("would_allow") or ()
        ),
        obligations=tuple(_obligation(item) for item in decision.get("obligations") or ()),
        checks=tuple(_check(check) for check in decision.get("checks") or ()),
        context=_facts(context),
        request=_facts(request),
        outcome=_facts(outcome.get("outcome", {})),
        versions=_facts(versions),
    )


def _texts(items: Any) -> tuple[str, ...]:
    return tuple(str(item) for item in items or ())


def _check(check: dict[str, Any]) -> tuple[Name, str, Name, bool, tuple[str, ...]]:
    return (
        Name.of(str(check.get("principal", ""))),
        str(check.get("action", "")),
        Name.of(str(check.get("resource", ""))),
        check.get("decision") == "allow",
        _texts(check.get("determining")),
    )


def _obligation(item: dict[str, Any]) -> Fact:
    rest = {name: value for name, value in item.items() if name != "type"}
    shown = ", ".join(f"{name} {_plain(value)}" for name, value in rest.items() if value not in ("", None))
    return Fact(str(item.get("type", "")), shown)


def _facts(values: dict[str, Any]) -> tuple[Fact, ...]:
    return tuple(
        Fact(name, _plain(value))
        for name, value in sorted(_flat(values).items())
        if value not in (None, "", [], {})
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict) and not {"__entity", "__extn"} & value.keys()
        flat |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat


def _plain(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case {"__entity": {"type": kind, "id": name}}:
            return str(EntityUid(str(kind), str(name)))
        case {"__extn": {"arg": argument}}:
            return str(argument)
        case list() | tuple():
            return ", ".join(_plain(item) for item in value) or "none"
    return str(value)
