# ruff: noqa: E501 -- policies and cases stand on one line each, as in a table
from __future__ import annotations

import pytest

from doorward.cedar.annotations import NAMES, AnnotationError, check, obligations
from doorward.core.obligation import (
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


@pytest.mark.parametrize(
    ("name", "value", "obligation"),
    [
        ("mask", "email, phone", Mask(("email", "phone"))),
        ("mask", "straße", Mask(("straße",))),
        ("redact", "pii,secrets", Redact(("pii", "secrets"))),
        ("screen", "injection", Screen(("injection",))),
        ("limit", "60/minute", Limit("p", 60, 60)),
        ("limit", "5/day per principal", Limit("p", 5, 86_400, Per.PRINCIPAL)),
        ("budget", "100000 tokens/day", Budget("p", 100_000, "tokens", 86_400)),
        ("budget", "9 bytes/hour per project", Budget("p", 9, "bytes", 3600, Per.PROJECT)),
        ("cap", "max_tokens=512", Cap("max_tokens", 512)),
        ("stepup", "acr=aal2,max_age=900", StepUp("aal2", 900)),
        ("stepup", "acr=aal2", StepUp("aal2", None)),
        ("readonly", "", ReadOnly()),
        ("watermark", "", Watermark()),
        ("notify", "owner", Notify("owner")),
    ],
)
def test_each_annotation_becomes_its_obligation(name: str, value: str, obligation: object) -> None:
    assert obligations({name: value, "id": "p", "doc": "x"}, "p") == (obligation,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mask", ""), ("mask", "a,,b"), ("mask", "a,a"), ("mask", "a\nb"), ("redact", "names"),
        ("screen", "pii"), ("limit", "60"), ("limit", "0/minute"), ("limit", "-1/minute"),
        ("limit", "60 / minute"), ("limit", "60/fortnight"), ("limit", "5/day per user"),
        ("limit", "9" * 40 + "/day"), ("limit", "\u0665/day"), ("budget", "5/day"),
        ("budget", "5 cents/day"), ("cap", "max_tokens"), ("cap", "temperature=1"),
        ("cap", "max_tokens=0"), ("stepup", ""), ("stepup", "max_age=5"), ("stepup", "acr=a,max_age=x"),
        ("stepup", "acr=a,acr=b"), ("stepup", "acr=a,age=5"), ("readonly", "yes"), ("notify", "everyone"),
        ("advice", ""), ("advice", "two\nlines"), ("advice", "x" * 501), ("id", "a\0b"), ("id", "separation:x"),
    ],
)  # fmt: skip
def test_a_value_outside_the_grammar_is_refused_with_a_fix(name: str, value: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        check(name, value)
    assert caught.value.hint


def test_the_set_is_closed() -> None:
    described = {"id", "doc", "owner", "label", "advice"}
    obeyed = {
        "mask",
        "redact",
        "screen",
        "limit",
        "budget",
        "cap",
        "stepup",
        "readonly",
        "watermark",
        "notify",
    }
    assert described | obeyed == NAMES
