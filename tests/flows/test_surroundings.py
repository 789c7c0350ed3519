"""Playbooks: what surrounds a request reaches its decision, and an open answer hears of a new signal."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from doorward.core.decision import Decision, Effect
from doorward.core.errors import AuditUnavailableError, UnavailableError
from doorward.core.feed import Place
from doorward.core.identity import Caller
from doorward.core.locations import Whereabouts
from doorward.core.model import EntityUid
from doorward.core.sightings import Oddity, Seen, Sighting, Signal
from doorward.gateway import alarms
from doorward.gateway.alarms import Alarms, alert_of
from doorward.gateway.body import AnswerCutError
from doorward.gateway.programs import product_of
from doorward.gateway.surroundings import Surroundings, credential_of, may_be_many

DANA, ETL = EntityUid.of("User", "dana"), EntityUid.of("Service", "etl")
MODEL = EntityUid.of("Model", "llm/smollm2")


class ScriptedLookout:
    def __init__(self) -> None:
        self.changed = 0
        self.seen: list[Sighting] = []
        self.odd = frozenset[str]()
        self.shows: frozenset[str] | None = None

    async def see(self, sighting: Sighting) -> None:
        self.seen.append(sighting)
        if self.shows is not None:
            self.odd = self.shows

    def signals(self, credential: str) -> frozenset[str]:
        return self.odd if self.seen and credential == self.seen[0].credential else frozenset()


@pytest.fixture
def lookout() -> ScriptedLookout:
    return ScriptedLookout()


@pytest.fixture
def watched(build_stage: Any, lookout: ScriptedLookout) -> Any:
    stage = build_stage(
        surroundings=Surroundings(
            geo=lambda ip: Place("BE", 50.8, 4.4) if ip == "203.0.113.5" else Place(), lookout=lookout
        )
    )
    stage.point.allow(DANA, "invoke", MODEL)
    stage.point.place_of = lambda ip: Place("NL") if ip.startswith("10.") else Place()
    return stage


async def test_what_a_request_shows_is_in_its_own_decision(watched: Any, lookout: ScriptedLookout) -> None:
    lookout.shows = frozenset({"impossible-travel"})
    watched.answers(b"hello")
    request = watched.request(headers=(("user-agent", "OpenAI/Python 1.40.0"),))
    await watched.flow.handle(request)
    (sighting,) = lookout.seen
    assert sighting.where == Whereabouts("10.0.0.7", "office", "NL")
    assert (sighting.client, sighting.principal, sighting.many) == ("openai", str(DANA), False)
    assert sighting.request_id == request.id
    assert "dw_caller" not in repr(sighting)
    (asked,) = watched.point.asked
    assert asked.context.signals == {"impossible-travel"}
    assert asked.context.network.country == "NL"
    assert watched.log.records[0].context["signals"] == ["impossible-travel"]


async def test_the_file_locates_only_what_lies_in_no_zone(watched: Any, lookout: ScriptedLookout) -> None:
    for ip, country in (("203.0.113.5", "BE"), ("203.0.113.6", None), ("10.0.0.7", "NL")):
        watched.answers(b"x")
        await watched.flow.handle(watched.request(ip=ip))
        assert watched.point.asked[-1].context.network.country == country
    assert lookout.seen[0].where.at == (50.8, 4.4)


async def test_who_is_not_known_is_not_noted(watched: Any, lookout: ScriptedLookout) -> None:
    watched.authenticator.fault = UnavailableError("no")
    await watched.flow.handle(watched.request())
    assert lookout.seen == []


async def test_an_open_answer_is_decided_on_the_signals_of_now(
    watched: Any, lookout: ScriptedLookout
) -> None:
    go_on = asyncio.Event()
    watched.answers(b"one", go_on, b"two")
    decide = watched.point.decide

    def strict(request: Any) -> Decision:
        if request.context.signals:
            return Decision(Effect.DENY, determining=("stolen-credential-stops",))
        return decide(request)

    watched.point.decide = strict
    sent: list[bytes] = []
    begun = asyncio.Event()

    async def carry() -> None:
        answer = await watched.flow.handle(watched.request())
        async for chunk in answer.body:
            sent.append(chunk)
            begun.set()

    carried = asyncio.create_task(carry())
    await asyncio.wait_for(begun.wait(), 10)
    assert await watched.open.sweep() == 0
    lookout.odd = frozenset({"shared-credential"})
    assert await watched.open.sweep() == 1
    with pytest.raises(AnswerCutError):
        await carried
    assert sent == [b"one"]
    outcome = watched.log.records[-1].outcome
    assert (outcome["ended"], outcome["cut_by"]) == ("cut", "denied: stolen-credential-stops")


# Who, with what


@pytest.mark.parametrize(
    ("agent", "product"),
    [
        (None, "none"),
        ("", "none"),
        ("curl/8.5.0", "curl"),
        ("OpenAI/Python 1.40.0", "openai"),
        ("python-requests/2.32.3", "python-requests"),
        ("Boto3/1.35 md/Botocore#1.35 ua/2.0 os/linux#6.1", "boto3"),
        (
            "Mozilla/5.0 (X11; Linux) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
            "chrome",
        ),
        ("Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML) Chrome/120.0 Safari/537.36 Edg/120.0", "edge"),
        ("Mozilla/5.0 (X11; Linux; rv:120.0) Gecko/20100101 Firefox/120.0", "firefox"),
        ("(odd)", "other"),
        ("x" * 1000, "x" * 32),
    ],
)
def test_a_program_is_its_product_without_version(agent: str | None, product: str) -> None:
    assert product_of(agent) == product


def test_a_key_is_one_credential_shown_or_signing_and_tokens_go_by_issuer_and_subject() -> None:
    shown = Caller(DANA, "key-1", "api-key")
    assert credential_of(shown) == credential_of(msgspec.structs.replace(shown, method="s3-signature"))
    token = Caller(DANA, "jti-1", "token", issuer="https://idp", subject="00u1")
    assert credential_of(token) == "token https://idp 00u1 jti-1"
    assert credential_of(token) != credential_of(msgspec.structs.replace(token, issuer="https://other"))


def test_only_workloads_that_are_tied_to_nothing_may_be_many() -> None:
    assert may_be_many(Caller(ETL, "key-1", "api-key"))
    assert not may_be_many(Caller(ETL, "key-1", "api-key", tied=True))
    assert not may_be_many(Caller(ETL, "key-1", "token", device=EntityUid.of("Device", "box")))
    assert may_be_many(Caller(EntityUid.of("Agent", "scout"), "spiffe://x/y", "svid"))
    assert not may_be_many(Caller(EntityUid.of("Agent", "scout"), "key-1", "api-key"))
    assert not may_be_many(Caller(DANA, "key-1", "api-key"))


# Alarms


def oddity() -> Oddity:
    def seen(ip: str, time: float) -> Seen:
        where = Whereabouts(ip, "unknown", "NL", (52.1, 5.1))
        sighting = Sighting(
            credential="api-key key-1", principal=str(DANA), where=where, client="curl", request_id="r1"
        )
        return Seen(sighting, time)

    return Oddity(
        signal=Signal.SHARED, before=seen("192.0.2.1", 0), now=seen("192.0.2.2", 60.5), odd="it is", until=9
    )


def test_an_alert_says_what_happened_what_is_odd_and_what_to_do() -> None:
    alert = alert_of(oddity(), record_id="a1", time="2026-11-23T12:00:00.000Z")
    assert (alert.kind, alert.code, alert.severity) == ("alert", "shared-credential", "high")
    assert (alert.principal, alert.request_id) == (str(DANA), "r1")
    assert alert.detail.startswith(
        "What happened: used at 1970-01-01T00:00:00.000Z from 192.0.2.1 (zone unknown, NL) with `curl`; then "
        "used at 1970-01-01T00:01:00.500Z from 192.0.2.2 (zone unknown, NL) with `curl`. What is odd: it is. "
        "What to do: "
    )
    first, _ = alert.facts["what_happened"]
    assert first == {
        "time": "1970-01-01T00:00:00.000Z", "ip": "192.0.2.1", "zone": "unknown", "client": "curl",
        "tls": False, "request_id": "r1", "country": "NL", "at": [52.1, 5.1],
    }  # fmt: skip


async def test_an_alert_waits_until_the_log_takes_it(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "_RETRY_SECONDS", 0)
    counted: list[str] = []
    written = asyncio.Event()
    tries = iter([AuditUnavailableError("full"), AuditUnavailableError("full")])

    class Log:
        records: list[Any] = []  # noqa: RUF012 -- one test

        async def write(self, record: Any) -> None:
            if (fault := next(tries, None)) is not None:
                raise fault
            self.records.append(record)
            written.set()

    log: Any = Log()
    raising = Alarms(log, clock=stage.clock, ids=stage.ids, count=counted.append)
    raising.raise_(oddity())
    await asyncio.wait_for(written.wait(), 10)
    assert [record.code for record in log.records] == ["shared-credential"]
    assert counted == ["shared-credential"]
