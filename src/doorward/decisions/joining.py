"""Join what several satisfied policies demand: everything is kept, and of two bounds the tighter."""

from __future__ import annotations

from collections.abc import Iterable

from doorward.core.obligation import AnyObligation, Cap, Mask, Redact, Screen, StepUp


def join(obligations: Iterable[AnyObligation]) -> tuple[AnyObligation, ...]:
    """Return the strictest set of obligations that keeps every given one.

    Names of masks, redactions and screens are united; of caps on one field and step-ups to one
    level the smallest rules; a limit or budget counts for its own policy, so each one stays.
    """
    given = list(obligations)
    masked = _united(o.fields for o in given if isinstance(o, Mask))
    redacted = _united(o.kinds for o in given if isinstance(o, Redact))
    screened = _united(o.kinds for o in given if isinstance(o, Screen))
    joined: list[AnyObligation] = []
    joined += [Mask(masked)] if masked else []
    joined += [Redact(redacted)] if redacted else []
    joined += [Screen(screened)] if screened else []
    joined += _caps(given)
    joined += _step_ups(given)
    joined += dict.fromkeys(o for o in given if not isinstance(o, (Mask, Redact, Screen, Cap, StepUp)))
    return tuple(joined)


def _united(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))


def _caps(given: Iterable[AnyObligation]) -> list[AnyObligation]:
    smallest: dict[str, int] = {}
    for cap in given:
        if isinstance(cap, Cap):
            smallest[cap.field] = min(cap.value, smallest.get(cap.field, cap.value))
    return [Cap(field, value) for field, value in smallest.items()]


def _step_ups(given: Iterable[AnyObligation]) -> list[AnyObligation]:
    ages: dict[str, int | None] = {}
    for step in given:
        if isinstance(step, StepUp):
            known = [age for age in (step.max_age, ages.get(step.acr)) if age is not None]
            ages[step.acr] = min(known) if known else None
    return [StepUp(acr, age) for acr, age in ages.items()]
