"""The closed set of annotations, each with one grammar, and the obligations they become."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from doorward.core.obligation import (
    AnyObligation,
    Budget,
    Cap,
    Limit,
    Mask,
    Notify,
    Per,
    ReadOnly,
    Redact,
    Screen,
    StepUp,
    Watermark,
)

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_REDACTED = frozenset({"pii", "secrets"})
_SCREENED = frozenset({"injection"})
_CAPPED = frozenset({"max_tokens"})
_MOST = 10**12
_LONGEST_ADVICE = 500

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_FIELD = re.compile(r"\w[\w .$-]{0,127}")
_PER = r"(?: per (?P<per>principal|asset|project))?"
_UNIT = r"(?P<unit>second|minute|hour|day)"
_LIMIT = re.compile(rf"(?P<count>[1-9][0-9]*)/{_UNIT}{_PER}")
_BUDGET = re.compile(rf"(?P<count>[1-9][0-9]*) (?P<of>tokens|bytes)/{_UNIT}{_PER}")
_CAP = re.compile(r"(?P<field>[a-z_]+)=(?P<value>[1-9][0-9]*)")
_ACR = re.compile(r"[\w:./-]{1,128}", re.ASCII)


class AnnotationError(Exception):
    """Say what is wrong with an annotation's value and what its grammar is."""

    def __init__(self, message: str, hint: str) -> None:
        """Keep the sentence and the fix."""
        super().__init__(message)
        self.message = message
        self.hint = hint


def _words(value: str, hint: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(","))
    if not all(_FIELD.fullmatch(word) for word in words) or len(set(words)) < len(words):
        raise AnnotationError(f'"{value}" is not a list of different names', hint)
    return words


def _of(words: tuple[str, ...], known: frozenset[str], hint: str) -> tuple[str, ...]:
    for word in words:
        if word not in known:
            raise AnnotationError(f"`{word}` is not one of {', '.join(sorted(known))}", hint)
    return words


def _number(text: str, hint: str) -> int:
    if len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise AnnotationError(f"{text[:20]} is too large", hint)
    return int(text)


def _mask(value: str, _policy: str) -> AnyObligation:
    return Mask(_words(value, 'Write the columns or fields: @mask("email,phone").'))


def _redact(value: str, _policy: str) -> AnyObligation:
    hint = 'Write @redact("pii"), @redact("secrets") or @redact("pii,secrets").'
    return Redact(_of(_words(value, hint), _REDACTED, hint))


def _screen(value: str, _policy: str) -> AnyObligation:
    hint = 'Write @screen("injection").'
    return Screen(_of(_words(value, hint), _SCREENED, hint))


def _limit(value: str, policy: str) -> AnyObligation:
    hint = 'Write @limit("60/minute"), per second, minute, hour or day, with ` per principal|asset|project`.'
    found = _LIMIT.fullmatch(value)
    if found is None:
        raise AnnotationError(f'"{value}" is not a limit', hint)
    return Limit(policy, _number(found["count"], hint), _SECONDS[found["unit"]], Per(found["per"] or ""))


def _budget(value: str, policy: str) -> AnyObligation:
    hint = 'Write @budget("100000 tokens/day"), tokens or bytes, with ` per principal|asset|project`.'
    found = _BUDGET.fullmatch(value)
    if found is None:
        raise AnnotationError(f'"{value}" is not a budget', hint)
    return Budget(
        policy,
        _number(found["count"], hint),
        found["of"],
        _SECONDS[found["unit"]],
        Per(found["per"] or ""),
    )


def _cap(value: str, _policy: str) -> AnyObligation:
    hint = 'Write @cap("max_tokens=512").'
    found = _CAP.fullmatch(value)
    if found is None or found["field"] not in _CAPPED:
        raise AnnotationError(f'"{value}" is not a cap', hint)
    return Cap(found["field"], _number(found["value"], hint))


def _stepup(value: str, _policy: str) -> AnyObligation:
    hint = 'Write @stepup("acr=aal2,max_age=900"); `max_age` (seconds) may be left out.'
    pairs = [part.strip().partition("=")[::2] for part in value.split(",")]
    parts = dict(pairs)
    acr, age = parts.pop("acr", ""), parts.pop("max_age", None)
    if parts or not _ACR.fullmatch(acr) or len(pairs) > (2 if age is not None else 1):
        raise AnnotationError(f'"{value}" is not a step-up', hint)
    if age is not None and not re.fullmatch(r"[1-9][0-9]*", age):
        raise AnnotationError(f'"{age}" is not a number of seconds', hint)
    return StepUp(acr, None if age is None else _number(age, hint))


def _bare(obligation: AnyObligation) -> Callable[[str, str], AnyObligation]:
    name = type(obligation).__struct_config__.tag

    def read(value: str, _policy: str) -> AnyObligation:
        if value:
            raise AnnotationError(f"`@{name}` takes no value", f"Write @{name} alone.")
        return obligation

    return read


def _notify(value: str, _policy: str) -> AnyObligation:
    if value != "owner":
        raise AnnotationError(f'"{value}" cannot be notified', 'Write @notify("owner").')
    return Notify(value)


_OBLIGATIONS: Mapping[str, Callable[[str, str], AnyObligation]] = {
    "mask": _mask,
    "redact": _redact,
    "screen": _screen,
    "limit": _limit,
    "budget": _budget,
    "cap": _cap,
    "stepup": _stepup,
    "readonly": _bare(ReadOnly()),
    "watermark": _bare(Watermark()),
    "notify": _notify,
}
_DESCRIPTIVE = frozenset({"id", "doc", "owner", "label", "advice"})
NAMES = frozenset(_OBLIGATIONS) | _DESCRIPTIVE
ON_FORBID = _DESCRIPTIVE | {"notify"}


def check(name: str, value: str) -> None:
    """Raise AnnotationError when a known annotation's value is outside its grammar."""
    if name == "id" and not _ID.fullmatch(value):
        raise AnnotationError(
            f"`{value[:40]}` cannot be an @id" if value else "the @id is empty",
            "Use letters, digits, dots, dashes and slashes.",
        )
    if name == "advice" and not (value.strip() and value.isprintable() and len(value) <= _LONGEST_ADVICE):
        raise AnnotationError(
            "an @advice is one sentence on one line",
            f"Say in at most {_LONGEST_ADVICE} characters what the caller may do.",
        )
    if name in _OBLIGATIONS:
        _OBLIGATIONS[name](value, "")


def obligations(annotations: Mapping[str, str], policy: str) -> tuple[AnyObligation, ...]:
    """Return the obligations a policy's annotations stand for; raise AnnotationError for a bad one."""
    return tuple(
        _OBLIGATIONS[name](value, policy)
        for name, value in sorted(annotations.items())
        if name in _OBLIGATIONS
    )
