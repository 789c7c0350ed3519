"""One rule of the AuthZEN certification: its id, its sentence, what is sent and what must come back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.authzen_plane import EVALUATION, EVALUATIONS, Answer, Pep

SUBJECT, RESOURCE, ACTION = (f"/access/v1/search/{kind}" for kind in ("subject", "resource", "action"))
ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
ADMIN = {**BOB, "properties": {"role": "admin"}}
FIRST, SECOND = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ACTIVE = {**FIRST, "properties": {"status": "active"}}
ARCHIVED = {**SECOND, "properties": {"status": "archived"}}
READ, WRITE = {"name": "read"}, {"name": "write"}
USERS, RECORDS = {"type": "user"}, {"type": "record"}
CONTEXT = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}
UNKNOWN = {"foo": "bar", "futureField": {"nested": True}}
REQUEST_ID = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"
TIMES = 3


def asked(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


def without(body: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Return a body without the member at a path."""
    if len(path) == 1:
        return {name: value for name, value in body.items() if name != path[0]}
    return {**body, path[0]: without(body[path[0]], *path[1:])}


VALID = {
    EVALUATION: asked(ALICE, READ, FIRST),
    EVALUATIONS: {"subject": BOB, "resource": FIRST, "evaluations": [{"action": READ}, {"action": WRITE}]},
    SUBJECT: asked(USERS, READ, FIRST),
    RESOURCE: asked(ALICE, READ, RECORDS),
    ACTION: {"subject": ALICE, "resource": FIRST},
}


@dataclass(frozen=True)
class Rule:
    """Send `body` to `path`; what is not None must hold of the answer.

    `decisions` holds None for a value the scenario leaves open. `holds` are names that a search must
    find among others, `like` another body whose results must be the same, `again` asks several times.
    """

    id: str
    sentence: str
    path: str
    body: Any
    status: int | tuple[int, ...] = 200
    decision: bool | None = None
    decisions: tuple[bool | None, ...] | None = None
    holds: frozenset[str] | None = None
    results: tuple[str, ...] | None = None
    like: Mapping[str, Any] | None = None
    again: bool = False
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Callable[[Answer], None] | None = None

    async def hold(self, pep: Pep) -> None:
        """Raise AssertionError if the decision point breaks this rule."""
        answer = await self._sent(pep, self.body)
        statuses = (self.status,) if isinstance(self.status, int) else self.status
        assert answer.status in statuses, (self.sentence, answer.status, answer.body)
        if answer.status == 200:
            self._shape(answer)
        if self.like is not None:
            assert answer.json["results"] == (await self._sent(pep, self.like)).json["results"]
        for _ in range(TIMES - 1 if self.again else 0):
            assert (await self._sent(pep, self.body)).body == answer.body
        if self.more is not None:
            self.more(answer)

    async def _sent(self, pep: Pep, body: Any) -> Answer:
        if self.method == "GET":
            return await pep.send("GET", self.path, **self.headers)
        if self.method != "POST":
            return await pep.send(self.method, self.path, str(body).encode(), **self.headers)
        return await pep.post(self.path, body, **self.headers)

    def _shape(self, answer: Answer) -> None:
        """Check what every successful answer owes (scenario 2.3, 3.3, 4.2 to 4.5, 5.2)."""
        assert answer.headers["content-type"].split(";")[0] == "application/json"
        if self.path in {SUBJECT, RESOURCE, ACTION}:
            self._search(answer)
        elif self.decisions is not None:
            assert "decision" not in answer.json
            items = answer.json["evaluations"]
            assert len(items) == len(self.decisions)
            for item, wanted in zip(items, self.decisions, strict=True):
                is_decision(item)
                assert wanted is None or item["decision"] is wanted, items
        elif self.path in {EVALUATION, EVALUATIONS}:
            assert "evaluations" not in answer.json
            is_decision(answer.json)
            assert self.decision is None or answer.json["decision"] is self.decision

    def _search(self, answer: Answer) -> None:
        results = answer.json["results"]
        kind = {SUBJECT: self.body.get("subject", {}), RESOURCE: self.body.get("resource", {})}.get(self.path)
        for entry in results:
            assert set(entry) == ({"name"} if kind is None else {"type", "id"})
            assert kind is None or entry["type"] == kind["type"]
        if "page" in answer.json:
            is_page(answer.json)
        found = tuple(entry.get("id", entry.get("name")) for entry in results)
        assert self.holds is None or self.holds <= set(found)
        assert self.results is None or self.results == found


def is_decision(item: Any) -> None:
    """Check a decision: a real boolean, and a context that is an object if there is one."""
    assert isinstance(item["decision"], bool)
    assert isinstance(item.get("context", {}), dict)


def is_page(body: Mapping[str, Any]) -> None:
    """Check a page: it stands first, with a token that is text (scenario 4.5.3)."""
    assert next(iter(body)) == "page"
    page = body["page"]
    assert isinstance(page["next_token"], str)
    assert isinstance(page.get("count", 0), int)
    assert isinstance(page.get("total", 0), int)
    assert isinstance(page.get("properties", {}), dict)


def echoes(answer: Answer) -> None:
    assert answer.headers["x-request-id"] == REQUEST_ID


def challenges(answer: Answer) -> None:
    assert answer.headers["www-authenticate"]
    assert b"decision" not in answer.body
    assert b"results" not in answer.body


def transport_rules(name: str, path: str, *, credentials: bool = True) -> list[Rule]:
    """Return the rules every endpoint has in common (scenario 2.4.3 to 2.5.2 and 5; specification 10)."""
    body = VALID[path]
    media, echo = {"content_type": "text/plain"}, {"x_request_id": REQUEST_ID}
    charset = {"content_type": "application/json; charset=utf-8"}
    said: list[tuple[str, str, dict[str, Any]]] = [
        ("accept-charset", "`application/json; charset=utf-8` MUST be accepted.", {"headers": charset}),
        ("reject-get", "Requests are POSTs: a GET MUST be rejected.", {"method": "GET", "status": 405}),
        ("reject-put", "Requests are POSTs: a PUT MUST be rejected.", {"method": "PUT", "status": 405}),
        ("reject-empty-body", "An empty body MUST be answered with 400.", {"body": b"", "status": 400}),
        ("reject-malformed", "A body that is no JSON MUST be 400.", {"body": b'{"subject": ', "status": 400}),
        ("reject-array", "The top-level element MUST be an object.", {"body": [body], "status": 400}),
        ("reject-scalar", "The top-level element MUST be an object.", {"body": b"true", "status": 400}),
        ("reject-media", "A Content-Type other than JSON MUST be 400.", {"headers": media, "status": 400}),
        ("request-id-echoed", "X-Request-ID MUST be echoed.", {"headers": echo, "more": echoes}),
        ("request-id-absent", "Without X-Request-ID the request MUST NOT fail.", {}),
        ("request-id-on-400", "X-Request-ID MUST be echoed on errors.",
         {"headers": echo, "more": echoes, "body": b"", "status": 400}),
        ("request-id-on-405", "X-Request-ID MUST be echoed on errors.",
         {"headers": echo, "more": echoes, "method": "PUT", "status": 405}),
        ("unknown-fields", "Unknown fields at the top level MUST be ignored.", {"body": {**body, **UNKNOWN}}),
        ("idempotent", "The same request MUST get the same answer each time.", {"again": True}),
    ]  # fmt: skip
    for shown, text in (("", "missing"), ("Bearer dw_wrong", "invalid")) if credentials else ():
        refused = {"headers": {"authorization": shown, **echo}, "status": 401, "more": challenges}
        said.append(
            (f"{text}-credentials", f"{text.title()} credentials MUST be answered with 401.", refused)
        )
    return [
        Rule(f"{name}-{short}", sentence, path, **{"body": body, **_expected(path, rule), **rule})
        for short, sentence, rule in said
    ]


def _expected(path: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    if "status" in rule:
        return {}
    return {
        EVALUATION: {"decision": True},
        EVALUATIONS: {"decisions": (True, False)},
        SUBJECT: {"holds": frozenset({"alice", "bob"})},
        RESOURCE: {"holds": frozenset({"record-1"})},
        ACTION: {"holds": frozenset({"read", "write"})},
    }[path]


def missing_rules(name: str, path: str, *paths: str) -> list[Rule]:
    """Return one rule per required member: without it the answer is 400 (scenario 2.4.1, 2.4.2, 4.7)."""
    return [
        Rule(
            f"{name}-missing-{dotted.replace('.', '-')}",
            f"A request without the required `{dotted}` MUST be answered with 400.",
            path,
            without(VALID[path], *dotted.split(".")),
            status=400,
        )
        for dotted in paths
    ]


def mistyped_rules(name: str, path: str, values: Mapping[str, Any]) -> list[Rule]:
    """Return one rule per member of a wrong type: 400 (scenario 2.4.6)."""
    found = []
    for dotted, wrong in values.items():
        outer, _, inner = dotted.partition(".")
        body = dict(VALID[path])
        body[outer] = {**body[outer], inner: wrong} if inner else wrong
        sentence = f"`{dotted}` of a wrong type ({type(wrong).__name__}) MUST be answered with 400."
        found.append(Rule(f"{name}-mistyped-{dotted.replace('.', '-')}", sentence, path, body, status=400))
    return found
