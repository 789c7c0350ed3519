"""Regions of names and the prefixes made of them: one verdict for all that lies under a name, or none."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from doorward.cedar.admission import PolicySource, admit
from doorward.core.errors import UnavailableError
from doorward.core.identity import Caller
from doorward.core.model import EntityUid
from doorward.core.wire import UpstreamRequest
from doorward.decisions.point import DecisionPoint, Standpoint
from doorward.directory.org import offline_snapshot, parse
from doorward.gateway.adapter import Permit
from doorward.gateway.circumstances import Circumstances
from doorward.gateway.judgement import outlook, sees
from doorward.gateway.prefixes import Place, Prefixes
from doorward.gateway.protocols.s3 import S3Adapter
from doorward.gateway.protocols.s3_names import Names
from doorward.policies.workspace import packaged_schema
from doorward.settings import UpstreamSettings
from support.s3_requests import FakeAnswer, FakeUpstream, bare

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PEOPLE = """
users:
  dana: { clearance: 1, projects: [fraud] }
  omar: { clearance: 3 }
agents:
  scout: { owner: dana, clearance: 0 }
assets:
  Dataset::"store/bkt": { owner: dana, sensitivity: 0, environment: testing }
"""
SETTINGS = UpstreamSettings(name="store", kind="s3", url="http://127.0.0.1:9000", weights_prefixes=("bkt/w",))
VIEW = '@id("{}") {}(principal, action == Doorward::Action::"view", resource) when {{ {} }};'
ATOMS = (
    "resource is Doorward::Dataset && resource.sensitivity <= 1",
    "resource is Doorward::Model && resource.sensitivity <= 2",
    'resource in Doorward::Dataset::"store/bkt/x"',
    'resource == Doorward::Dataset::"store/bkt/x/7"',
    'resource in Doorward::Dataset::"store/bkt/y/part/9"',
    'resource in Doorward::Project::"fraud"',
    "resource is Doorward::Dataset && resource has owner && resource.owner == principal",
    'principal in Doorward::Project::"fraud"',
    "context.risk < 50",
    "resource is Doorward::Dataset && resource.sensitivity + 1 < 3",
)
DIRS = ("x", "x/in", "y", "y/part", "z", "w", "w/in", "yy")


def standing(policies: str, org: str) -> Standpoint:
    point = DecisionPoint()
    point.publish(admit([PolicySource("a.cedar", policies)], packaged_schema()))
    point.advance(offline_snapshot(parse(org, "org.yaml")))
    return point.pin()


def drawn(seed: int) -> Standpoint:
    chance = random.Random(seed)  # noqa: S311 -- reproducible cases
    assets = "".join(
        f'  {chance.choice(("Dataset", "Dataset", "Model"))}::"store/bkt/{name}":'
        f" {{ sensitivity: {chance.randrange(4)}{chance.choice(('', ', projects: [fraud]'))} }}\n"
        for name in chance.sample(DIRS, chance.randrange(1, 6))
    )
    policies = [
        VIEW.format(
            f"p{n}",
            "permit" if n == 0 else chance.choice(("permit", "forbid")),
            chance.choice((" && ", " || ")).join(
                f"({atom})" for atom in chance.sample(ATOMS, chance.choice((1, 2)))
            ),
        )
        for n in range(chance.randrange(1, 4))
    ]
    return standing("\n".join(policies), PEOPLE + assets)


def place_of(standpoint: Standpoint) -> Place:
    return Names(SETTINGS, standpoint.snapshot).place("bkt")


def circumstances(actors: tuple[EntityUid, ...] = (), who: str = "dana") -> Circumstances:
    return Circumstances(caller=Caller(EntityUid.of("User", who), "k", "key", actors=actors), ip="127.0.0.1")


@pytest.mark.parametrize("seed", range(60))
def test_a_prefix_says_what_deciding_each_name_under_it_says(seed: int) -> None:
    standpoint = drawn(seed)
    names = Names(SETTINGS, standpoint.snapshot)
    keys = [f"{folder}/{leaf}" for folder in ("", *DIRS) for leaf in ("7", "9", "deep/er/7", "")]
    for asked in (
        circumstances(),
        circumstances((EntityUid.of("Agent", "scout"),)),
        circumstances(who="gone"),
    ):
        found = outlook(standpoint, place_of(standpoint), circumstances=asked, now=NOW)
        assert found is not None
        decided = {
            f"store/bkt/{key}".removesuffix("/"): sees(
                standpoint, names.of("bkt", key.removeprefix("/")), circumstances=asked, now=NOW
            )
            for key in keys
            if not key.startswith("/")
        }
        for name, seen in decided.items():
            assert found.verdict(name) in {None, seen}, name
        for prefix in ("store/bkt", *(f"store/bkt/{folder}" for folder in DIRS)):
            said = found.throughout(prefix)
            below = {seen for name, seen in decided.items() if f"{name}/".startswith(f"{prefix}/")}
            assert said is None or below <= {said}, prefix
            assert (prefix in found.denied) <= (said is False)
            assert (prefix in found.allowed) <= (said is True)


def test_most_prefixes_are_settled() -> None:
    settled = [
        outlook(one, place_of(one), circumstances=circumstances(), now=NOW).rules  # type: ignore[union-attr]
        for one in map(drawn, range(60))
    ]
    verdicts = [said for rules in settled for _, said in rules]
    assert sum(said is not None for said in verdicts) > len(verdicts) / 2
    assert {True, False, None} <= {*verdicts}


def test_the_longest_prefix_rules_and_the_stricter_asker_wins() -> None:
    one = (("s/b", True), ("s/b/x", False), ("s/b/x/open", True), ("s/b/y", None))
    joined = Prefixes.of([one, (("s/b", True), ("s/b/x/open", False))])
    assert joined is not None
    assert [joined.verdict(f"s/b/{key}") for key in ("q", "x/1", "x/open/1", "xx", "y/1")] == [
        True, False, False, True, None,
    ]  # fmt: skip
    assert joined.denied == ("s/b/x",)
    assert joined.throughout("s/b") is None
    assert joined.throughout("s/b/xx") is True
    assert Prefixes.of([one, None]) is None
    assert Prefixes.of([]) is None


class BigStore:
    """A bucket of sorted keys that is listed a thousand at a time, as S3 does."""

    def __init__(self, keys: list[str]) -> None:
        self.keys, self.pages = sorted(keys), 0

    def __call__(self, request: UpstreamRequest) -> FakeAnswer:
        self.pages += 1
        query = {k: v[0] for k, v in parse_qs(urlsplit(request.target).query).items()}
        after = query.get("continuation-token", query.get("start-after", ""))
        left = [k for k in self.keys if k > after and k.startswith(query.get("prefix", ""))]
        page = left[: int(query["max-keys"])]
        shown = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in page)
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{page[-1]}</NextContinuationToken>"
        body = f"<ListBucketResult>{shown}{more if len(left) > len(page) else ''}</ListBucketResult>"
        return FakeAnswer(200, [], body.encode())


@pytest.fixture
def hidden_first() -> BigStore:
    return BigStore([f"aaa/{n:06}" for n in range(120_000)] + ["aaab", "zzz/1", "zzz/2"])


async def listed(standpoint: Standpoint, store: BigStore, *, looks: bool) -> str:
    asked = circumstances()
    adapter = S3Adapter(SETTINGS)
    request = bare(target="/store/bkt?list-type=2")
    permit = Permit(
        request=request,
        body=b"",
        naming=adapter.name(request, b"", standpoint.snapshot),
        caller=asked.caller,
        obligations=(),
        sees=lambda uid: sees(standpoint, uid, circumstances=asked, now=NOW),
        outcome={},
        outlook=(lambda place: outlook(standpoint, place, circumstances=asked, now=NOW)) if looks else None,
    )
    answer = await adapter.forward(permit, FakeUpstream(store))
    assert isinstance(answer.body, bytes)
    return answer.body.decode()


RULE = VIEW.format("a", "permit", "resource is Doorward::Dataset && resource.sensitivity < 2")
HIDDEN = PEOPLE + '  Dataset::"store/bkt/aaa": { sensitivity: 3 }\n'


async def test_a_list_does_not_read_what_its_caller_may_not_view(hidden_first: BigStore) -> None:
    standpoint = standing(RULE, HIDDEN)
    body = await listed(standpoint, hidden_first, looks=True)
    assert [key in body for key in ("aaab", "zzz/1", "zzz/2", "aaa/")] == [True, True, True, False]
    assert hidden_first.pages == 2


async def test_without_an_outlook_the_list_would_be_too_long(hidden_first: BigStore) -> None:
    with pytest.raises(UnavailableError):
        await listed(standing(RULE, HIDDEN), hidden_first, looks=False)


async def test_a_visible_child_of_a_hidden_prefix_is_not_jumped_over() -> None:
    inner = '  Dataset::"store/bkt/aaa/q": { sensitivity: 0 }\n'
    standpoint = standing(RULE, HIDDEN + inner)
    known = msgspec.structs.replace(standpoint.snapshot.known, lowered=('Dataset::"store/bkt/aaa/q"',))
    point = DecisionPoint()
    point.publish(standpoint.bundle)
    point.advance(type(standpoint.snapshot).of(known))
    store = BigStore([f"aaa/{n:06}" for n in range(3000)] + ["aaa/q/1", "b"])
    body = await listed(point.pin(), store, looks=True)
    assert "aaa/q/1" in body
    assert "<Key>b</Key>" in body
    assert "aaa/0" not in body


def test_an_outlook_that_fails_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    standpoint = standing(RULE, HIDDEN)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Standpoint, "regions", fails)
    assert outlook(standpoint, place_of(standpoint), circumstances=circumstances(), now=NOW) is None
