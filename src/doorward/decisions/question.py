"""Turn a question asked in words (command line, management API, test file) into a request and ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from ipaddress import ip_interface
from typing import Any

import msgspec

from doorward.core.context import Context, DeviceContext
from doorward.core.decision import AccessRequest, Decision, Effect
from doorward.core.errors import InvalidRequestError
from doorward.core.feed import Place
from doorward.core.model import NAMESPACE, Action, EntityUid
from doorward.core.values import uid_from_json
from doorward.decisions import together
from doorward.decisions.point import Standpoint
from doorward.directory.snapshot import Snapshot

_DECLARED = frozenset({"User", "Service", "Agent", "Device", "Model", "Dataset", "Endpoint", "Tool"})


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask `may principal do action to resource`; what is not said takes a neutral value.

    `device` names a device and proves it for the question; `mfa_age` (seconds) means a session with
    MFA; `at` is an ISO time with its zone; `context` is merged, deep, over the neutral default.
    """

    principal: str
    action: str
    resource: str
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    device: str | None = None
    zone: str | None = None
    purpose: str | None = None
    mfa_age: int | None = None
    at: str | None = None


def answer(question: Question, standpoint: Standpoint, now: datetime, *, explain: bool = True) -> Decision:
    """Decide a question, as the gateway would; raise InvalidRequestError for one that cannot be read."""
    request = request_of(question, standpoint.snapshot, now)
    refused = _not_hers(question, request, standpoint)
    if refused is not None:
        return refused
    asked, decision = together.judged(request, standpoint.decide, standpoint.snapshot)
    if not explain or together.OWNER_FORBIDDEN in decision.determining:
        return decision
    told = standpoint.explain(asked, decision, None)
    return msgspec.structs.replace(told, advice=(*told.advice, *_unknown(request, standpoint.snapshot)))


def answered_among(
    question: Question, resources: Iterable[EntityUid], standpoint: Standpoint, now: datetime
) -> Iterator[EntityUid]:
    """Yield the resources on which a question is answered yes; its own resource is not read."""
    request = request_of(question, standpoint.snapshot, now)
    if _not_hers(question, request, standpoint) is not None:
        return
    if together.is_alone(request):
        yield from standpoint.among(request, resources)
        return
    for uid in resources:
        one = msgspec.structs.replace(request, resource=uid)
        if together.judged(one, standpoint.decide, standpoint.snapshot)[1].allowed:
            yield uid


def request_of(question: Question, snapshot: Snapshot, now: datetime) -> AccessRequest:
    """Return the request a question stands for."""
    principal = EntityUid.parse(question.principal)
    context = _with_context(_neutral(principal, snapshot, now), question.context)
    return AccessRequest(
        principal=principal,
        action=_action(question.action),
        resource=EntityUid.parse(question.resource),
        context=_with_options(context, question, snapshot),
    )


def context_of(
    principal: EntityUid, document: Mapping[str, Any], snapshot: Snapshot, now: datetime
) -> Context:
    """Return the neutral circumstances of a principal with those of `document` merged in, deep.

    Raises InvalidRequestError for a circumstance that does not exist or cannot have that value.
    """
    return _with_context(_neutral(principal, snapshot, now), document)


def _unknown(request: AccessRequest, snapshot: Snapshot) -> Iterator[str]:
    """Say which names nobody declared: the commonest reason of a deny is a slip of the pen."""
    for uid in (request.principal, request.resource):
        if uid.kind in _DECLARED and snapshot.resolve(uid) is None:
            yield f"{uid} is not known: declare it in org.yaml, or correct its name."


def _not_hers(question: Question, request: AccessRequest, standpoint: Standpoint) -> Decision | None:
    """Deny a stated purpose that is not the principal's, which the gateway never lets through."""
    purpose = question.purpose
    if purpose is None or purpose in standpoint.snapshot.purposes_of(request.principal):
        return None
    return Decision(
        Effect.DENY,
        advice=(f"The purpose {purpose} is not assigned to {request.principal}.",),
        bundle=standpoint.bundle_digest,
        entities=standpoint.entities_version,
    )


def _action(text: str) -> EntityUid:
    if "::" in text:
        uid = EntityUid.parse(text)
        if uid.type.endswith("::Action") and uid.type != f"{NAMESPACE}::Action":
            return uid  # an installation's own schema may name others; the evaluator judges them
        text = uid.id if uid.type == f"{NAMESPACE}::Action" else text
    known = [action.value for action in Action]
    if text in known:
        return Action(text).uid
    near = get_close_matches(text, known, n=1)
    raise InvalidRequestError(
        f"there is no action `{text}`",
        hint=f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}.",
    )


def _neutral(principal: EntityUid, snapshot: Snapshot, now: datetime) -> Context:
    entity = snapshot.entity(principal)
    place = entity.attrs.get("environment") if entity is not None else None
    return Context(now=now, environment=place if isinstance(place, EntityUid) else None)


def _with_options(context: Context, question: Question, snapshot: Snapshot) -> Context:
    changed: dict[str, Any] = {}
    if question.device is not None:
        changed["device"] = _device(question.device, snapshot)
    if question.zone is not None:
        country = snapshot.places.get(question.zone, Place()).country
        changed["network"] = msgspec.structs.replace(context.network, zone=question.zone, country=country)
    if question.purpose is not None:
        changed["purpose"] = question.purpose
    if question.mfa_age is not None:
        if question.mfa_age < 0:
            raise InvalidRequestError("an MFA age is a number of seconds from 0", hint="Write --mfa-age 60.")
        changed["session"] = msgspec.structs.replace(context.session, mfa=True, mfa_age=question.mfa_age)
    if question.at is not None:
        changed["now"] = _moment(question.at)
    return msgspec.structs.replace(context, **changed)


def _device(name: str, snapshot: Snapshot) -> DeviceContext:
    uid = EntityUid.parse(name) if "::" in name else EntityUid.of("Device", name)
    device = snapshot.entity(uid)
    if device is None or uid.kind != "Device":
        raise InvalidRequestError(
            f"there is no device `{name}`", hint="See `doorward devices` or the org file."
        )
    return DeviceContext.of(device, proven=True)


# The context in JSON


def _with_context(context: Context, document: Mapping[str, Any]) -> Context:
    merged = _merge(context, document, "context")
    return merged if isinstance(merged, Context) else context


def _merge(struct: msgspec.Struct, document: Any, where: str) -> msgspec.Struct:
    """Return `struct` with the fields of `document`; raise InvalidRequestError for an unknown one."""
    if not isinstance(document, Mapping):
        raise InvalidRequestError(f"`{where}` must be an object", hint='Write {"name": value}.')
    changed: dict[str, Any] = {}
    for name, value in document.items():
        place = f"{where}.{name}"
        if name not in struct.__struct_fields__:
            near = get_close_matches(str(name), struct.__struct_fields__, n=1)
            raise InvalidRequestError(
                f"there is no `{place}`",
                hint=f"Did you mean `{near[0]}`?"
                if near
                else f"Known: {', '.join(struct.__struct_fields__)}.",
            )
        present = getattr(struct, name)
        if isinstance(present, msgspec.Struct) and not isinstance(present, EntityUid):
            changed[name] = _merge(present, value, place)
        else:
            changed[name] = _value(name, value, place)
    return msgspec.structs.replace(struct, **changed)


def _value(name: str, value: Any, place: str) -> Any:
    read = _READERS.get(name)
    try:
        if read is not None:
            return read(value)
    except (ValueError, TypeError, KeyError) as reason:
        raise InvalidRequestError(f"`{place}` cannot be {value!r}", hint=_HINTS.get(name, "")) from reason
    raise InvalidRequestError(f"`{place}` cannot be given")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise TypeError
    return value


def _moment(value: Any) -> datetime:
    text = _text(value["__extn"]["arg"] if isinstance(value, Mapping) else value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequestError(f"`{text}` is not a time with its zone", hint=_HINTS["now"])
    return moment.astimezone(UTC)


def _address(value: Any) -> Any:
    return ip_interface(_text(value["__extn"]["arg"] if isinstance(value, Mapping) else value))


def _entity(kind: str) -> Callable[[Any], EntityUid]:
    def read(value: Any) -> EntityUid:
        if isinstance(value, Mapping):
            return uid_from_json(value)
        text = _text(value)
        return EntityUid.parse(text) if "::" in text else EntityUid.of(kind, text)

    return read


def _texts(value: Any) -> frozenset[str]:
    if not isinstance(value, list):
        raise TypeError
    return frozenset(_text(item) for item in value)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("known", "proven", "managed", "compliant", "mfa", "minted", "stream"), _flag),
    **dict.fromkeys(("age", "mfa_age", "bytes", "max_tokens", "risk", "depth"), _number),
    **dict.fromkeys(("zone", "country", "method", "acr", "purpose"), _text),
    **dict.fromkeys(("signals", "tools"), _texts),
    "now": _moment,
    "ip": _address,
    "id": _entity("Device"),
    "environment": _entity("Environment"),
    "actor": _entity("Agent"),
    "arguments": _entity("Arguments"),
}
_HINTS = {"now": "Write 2026-01-31T12:00:00Z.", "ip": "Write an address: 10.1.2.3."}
