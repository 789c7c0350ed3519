"""Audit records: one per decision, one per outcome; never prompts, answers, tokens or keys."""

from __future__ import annotations

from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Fields every record has; the log itself adds `seq`, `writer` and the chain hash.

    `id` is the record's own, `request_id` joins a decision with its outcome and with the
    `Doorward-Request-Id` header. `time` is RFC 3339 in UTC with milliseconds.
    """

    id: str
    kind: str
    time: str
    request_id: str


class Check(msgspec.Struct, frozen=True):
    """State one (principal, action, resource) of a request and how policies judged it."""

    principal: str
    action: str
    resource: str
    decision: str
    determining: tuple[str, ...] = ()


class DecisionRecord(Record, frozen=True, kw_only=True):
    """State a verdict (`kind` = `decision`): `decision` is final, `policy_decision` the policies'.

    `code` is `allowed` or the refusal's code (`denied`, `unauthenticated`, `limit_exceeded`, ...).
    `inputs` is the sha256 of the canonical JSON of everything the decision read.
    """

    decision: str
    code: str
    policy_decision: str = ""
    principal: str = ""
    actor: tuple[str, ...] = ()
    device: str = ""
    action: str = ""
    resource: str = ""
    checks: tuple[Check, ...] = ()
    upstream: str = ""
    environment: str = ""
    purpose: str = ""
    determining: tuple[str, ...] = ()
    obligations: tuple[dict[str, Any], ...] = ()
    errors: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    would_allow: tuple[dict[str, str], ...] = ()
    detail: str = ""
    bundle: str = ""
    entities: str = ""
    inputs: str = ""
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    network: dict[str, Any] = msgspec.field(default_factory=dict)
    session: dict[str, Any] = msgspec.field(default_factory=dict)
    request: dict[str, Any] = msgspec.field(default_factory=dict)
    trace: str = ""


class OutcomeRecord(Record, frozen=True, kw_only=True):
    """State what became of an allowed request (`kind` = `outcome`), or a stream that was cut.

    `outcome` = {status, bytes, tokens_in, tokens_out, redactions, ms, shown, hidden, ended};
    `ended` is `complete`, `client_left`, `cut` (with `cut_by`), `upstream_failed`, or `refused` where a
    protocol file found only while forwarding that it may not go on.
    """

    principal: str = ""
    upstream: str = ""
    action: str = ""
    resource: str = ""
    outcome: dict[str, Any] = msgspec.field(default_factory=dict)


class AdminRecord(Record, frozen=True, kw_only=True):
    """State a change to Doorward itself (`kind` = `admin`): who did what to which object."""

    decision: str
    principal: str
    action: str
    resource: str
    detail: str = ""
    changes: dict[str, Any] = msgspec.field(default_factory=dict)


class LogRecord(Record, frozen=True, kw_only=True):
    """State what befell the log itself (`kind` = `log`): opened, torn tail cut, space came back.

    `event` is `opened`, `healed`, `lost`, `unclaimed`, or what recovery found broken: `tail_lost`,
    `tail_changed`, `tail_added`, `head_lost`.
    """

    event: str
    detail: str = ""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class AlertRecord(Record, frozen=True, kw_only=True):
    """State what a person must look at (`kind` = `alert`): `code` names what happened.

    `severity` is `critical`, `high`, `medium` or `low`. Principal, action and resource are those of the
    request that showed it, where there is one; `facts` hold the rest.
    """

    code: str
    severity: str
    detail: str
    principal: str = ""
    action: str = ""
    resource: str = ""
    bundle: str = ""
    entities: str = ""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
