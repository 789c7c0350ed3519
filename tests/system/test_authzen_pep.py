"""What an enforcement point may ask, state and be told; and that all of it is on record."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from doorward.core.errors import AuditUnavailableError
from doorward.core.model import EntityUid
from doorward.sdk import Client
from support import authzen_plane, console_plane
from support.authzen_plane import EVALUATION, EVALUATIONS, Pep, key_for
from support.policies import ORG, STARTER

ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
FIRST, SECOND = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
READ, WRITE = {"name": "read"}, {"name": "write"}
TRAINING = {"type": "Dataset", "id": "store/training/a.csv"}
_APPLY = (
    "import typer; from doorward.cli import apply, init; app = typer.Typer();"
    "apply.register(app); init.register(app); app()"
)
RIGHTS = """
@id("may-ask") permit(principal == Doorward::Service::"{0}", action == Doorward::Action::"inspect", resource)
  when {{ {1} }};
"""
POLICIES = (
    (STARTER / "data.cedar").read_text()
    + (STARTER / "models.cedar").read_text()
    + RIGHTS.format(
        "etl", 'resource == Doorward::Control::"policies" || resource == Doorward::Control::"audit"'
    )
    + """
@id("obliged") @mask("email") @stepup("acr=aal2,max_age=900")
permit(principal == Doorward::User::"omar", action == Doorward::Action::"read",
       resource == Doorward::Dataset::"store/sealed");
"""
)


@pytest_asyncio.fixture
async def pep() -> AsyncIterator[Pep]:
    async with authzen_plane.running(policies=POLICIES) as running:
        yield running


async def other(pep: Pep, service: str) -> Pep:
    """Return another enforcement point, which pep.toml does not name."""
    body = {"org": ORG, "source": "org.yaml", "prune": False, "plan": False}
    assert (await pep.plane.operator("POST", "/api/v1/apply", body))[0] == 200
    return Pep(pep.plane, key_for(pep.plane, EntityUid.of("Service", service)))


def asked(subject: Any, action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "action": action, "resource": resource, **more}


async def test_the_directory_wins_and_what_is_ignored_is_noted(pep: Pep) -> None:
    lie = {**SECOND, "properties": {"status": "active", "color": "red"}}
    answer = (await pep.post(EVALUATION, asked(ALICE, WRITE, lie))).json
    assert answer["decision"] is False
    assert answer["context"]["ignored"] == [
        "resource.properties.status: the directory says otherwise",
        "resource.properties.color: not among what this enforcement point may state",
    ]
    # Alice has no role on record; the enforcement point may state it, but `active` it may not.
    admin = {**ALICE, "properties": {"role": "admin", "active": False}}
    answer = (await pep.post(EVALUATION, asked(admin, WRITE, SECOND, context={"risk": 0}))).json
    assert answer["decision"] is True
    assert len(answer["context"]["ignored"]) == 2


async def test_what_was_stated_for_one_question_is_not_known_in_the_next(pep: Pep) -> None:
    admin = {**ALICE, "properties": {"role": "admin"}}
    batch = {"action": WRITE, "resource": SECOND, "evaluations": [{"subject": admin}, {"subject": ALICE}]}
    answers = (await pep.post(EVALUATIONS, batch)).json["evaluations"]
    assert [answer["decision"] for answer in answers] == [True, False]


@pytest.mark.parametrize(
    ("subject", "resource"),
    [
        ({"type": "Doorward::User", "id": "dana"}, TRAINING),
        ({"type": "user", "id": "alice"}, {"type": "AuthZEN::record", "id": "record-1"}),
        ({"type": "record", "id": "record-1"}, FIRST),
        ({"type": "user", "id": "nobody"}, FIRST),
        (ALICE, {"type": "record", "id": "not-registered"}),
    ],
)
async def test_outside_its_scope_everything_is_false(pep: Pep, subject: Any, resource: Any) -> None:
    answer = await pep.post(EVALUATION, asked(subject, READ, resource))
    assert answer.status == 200
    assert answer.json == {"decision": False}


async def test_a_scope_can_be_a_part_of_a_type(pep: Pep) -> None:
    file = pep.plane.data / "policies" / "pep.toml"
    file.write_text(file.read_text().replace('properties = ["status"]', 'within = ["record-2"]'))
    assert (await pep.post(EVALUATION, asked(BOB, READ, SECOND))).json["decision"] is True
    assert (await pep.post(EVALUATION, asked(BOB, READ, FIRST))).json["decision"] is False
    found = (await pep.post("/access/v1/search/resource", asked(BOB, READ, {"type": "record"}))).json
    assert found["results"] == [{"type": "record", "id": "record-2"}]


async def test_a_scope_that_cannot_be_read_answers_nothing(pep: Pep) -> None:
    for broken in ("[[pep]]\nservce = 'x'\n", "[[pep", "[[pep]]\nservice='a'\n[[pep]]\nservice='a'\n"):
        (pep.plane.data / "policies" / "pep.toml").write_text(broken)
        answer = await pep.post(EVALUATION, asked(ALICE, READ, FIRST))
        assert answer.status == 503
        assert b'"decision"' not in answer.body


async def test_a_service_without_the_right_and_a_person_are_refused(pep: Pep) -> None:
    without = await other(pep, "etl-test")
    assert (await without.post(EVALUATION, asked(ALICE, READ, FIRST))).status == 403
    person = Pep(pep.plane, key_for(pep.plane, EntityUid.of("User", "dana")))
    assert (await person.post(EVALUATION, asked(ALICE, READ, FIRST))).status == 401


async def test_a_revoked_key_is_refused_at_once(pep: Pep) -> None:
    assert (await pep.post(EVALUATION, asked(ALICE, READ, FIRST))).status == 200
    keys = pep.plane.services.directory.keys()
    for key in keys:
        pep.plane.services.directory.revoke_key(key.id)
    assert (await pep.post(EVALUATION, asked(ALICE, READ, FIRST))).status == 401


async def test_searches_and_reasons_need_their_own_rights(pep: Pep) -> None:
    etl = await other(pep, "etl")  # may evaluate and be told reasons, not search
    dana = {"type": "User", "id": "dana"}
    found = await etl.post("/access/v1/search/action", {"subject": dana, "resource": TRAINING})
    assert (found.status, found.json) == (200, {"results": []})
    told = (await etl.post(EVALUATION, asked(dana, READ, TRAINING))).json
    assert told["decision"] is False
    assert "certificate of your device" in told["context"]["reason_user"]["en"]
    assert told["context"]["reason_admin"]["bundle"].startswith("sha256:")
    untold = (await pep.post(EVALUATION, asked(BOB, WRITE, FIRST))).json
    assert untold == {"decision": False}


async def test_obligations_have_the_drafts_shape_and_must_be_kept(pep: Pep) -> None:
    etl = await other(pep, "etl")
    question = asked({"type": "user", "id": "omar"}, READ, {"type": "dataset", "id": "store/sealed"})
    answer = (await etl.post(EVALUATION, question)).json
    assert answer["decision"] is True
    kinds = {one["type"]: one["properties"] for one in answer["context"]["obligations"]}
    assert kinds["step-up"] == {"acr_value": "aal2", "max_age": 900}
    assert kinds["custom"] == {"vendor": "doorward", "obligation": "mask", "fields": ["email"]}
    assert len({one["id"] for one in answer["context"]["obligations"]}) == 2

    for supported, expected in ((["step-up"], False), (list(kinds), True)):
        asked_so = {**question, "context": {"supported_obligations": supported}}
        assert (await etl.post(EVALUATION, asked_so)).json["decision"] is expected


async def test_a_search_leaves_out_what_would_oblige_to_more_than_the_caller_keeps(pep: Pep) -> None:
    await other(pep, "etl")
    question = asked({"type": "user"}, READ, {"type": "dataset", "id": "store/sealed"})
    for supported, expected in ((["step-up"], []), (["step-up", "custom"], ["omar"])):
        asked_so = {**question, "context": {"supported_obligations": supported}}
        status, answer = await pep.plane.operator("POST", "/access/v1/search/subject", asked_so)
        assert status == 200
        assert [entry["id"] for entry in answer["results"]] == expected


async def test_every_evaluation_is_on_record_with_who_asked(pep: Pep) -> None:
    batch = asked(BOB, READ, FIRST, evaluations=[{}, {"action": WRITE}])
    await pep.post(EVALUATIONS, batch)
    await pep.post("/access/v1/search/subject", asked({"type": "user"}, READ, FIRST))
    records = [r for r in await pep.records() if r["kind"] == "decision"]
    found, denied, allowed = records
    assert found["request"]["search"] == "subject"
    assert (allowed["decision"], denied["decision"]) == ("allow", "deny")
    assert denied["principal"] == 'AuthZEN::user::"bob"'
    assert denied["request"]["pep"] == 'Service::"authzen-pep"'
    assert denied["inputs"]
    assert denied["context"]["session"]["mfa"] is False
    assert allowed["determining"] == ["authzen-everybody-reads"]


async def test_without_a_record_there_is_no_answer(pep: Pep, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(_self: Any, _record: Any) -> None:
        raise AuditUnavailableError("the disk is gone")

    monkeypatch.setattr(type(pep.plane.services.audit), "write", lost)
    answer = await pep.post(EVALUATION, asked(ALICE, READ, FIRST), x_request_id="r-9")
    assert answer.status == 503
    assert answer.headers["x-request-id"] == "r-9"
    assert b'"decision"' not in answer.body


async def test_a_page_in_a_browser_cannot_ask(pep: Pep) -> None:
    question = asked(ALICE, READ, FIRST)
    for headers in ({"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}):
        assert (await pep.post(EVALUATION, question, **headers)).status == 403


async def test_the_operator_asks_over_the_socket_without_a_key(pep: Pep) -> None:
    await other(pep, "etl")
    context = {"purpose": "fraud-model", "device": {"id": "laptop-7", "proven": True}}
    question = asked({"type": "user", "id": "dana"}, READ, TRAINING)
    status, answer = await pep.plane.operator("POST", EVALUATION, {**question, "context": context})
    assert (status, answer["decision"]) == (200, True)
    # Posture comes from the directory, a purpose from the person.
    unknown = {"purpose": "fraud-model", "device": {"id": "ghost", "managed": True, "proven": True}}
    for wrong in (unknown, {**context, "purpose": "not-hers"}):
        _, answer = await pep.plane.operator("POST", EVALUATION, {**question, "context": wrong})
        assert answer["decision"] is False


async def test_a_pack_is_added_whole_once_and_never_over_other_files(pep: Pep) -> None:
    status, again = await pep.plane.operator("POST", "/api/v1/packs/authzen", {})
    assert (status, again["applied"], again["files"]) == (200, False, [])
    (pep.plane.data / "policies" / "authzen.cedar").write_text("// mine")
    status, problem = await pep.plane.operator("POST", "/api/v1/packs/authzen", {})
    assert (status, problem["code"]) == (409, "conflict")
    status, _ = await pep.plane.operator("POST", "/api/v1/packs/../../etc", {})
    assert status == 404
    status, _ = await pep.plane.operator("POST", "/api/v1/packs/none", {})
    assert status == 404


async def test_the_command_adds_a_pack() -> None:
    async with console_plane.running() as plane:
        directory = plane.data / "policies"
        directory.mkdir()
        (directory / "test.cedar").write_text(console_plane.POLICIES)
        command = (
            *(sys.executable, "-c", _APPLY),
            *("apply", "--data", str(plane.data)),
        )
        said = await asyncio.to_thread(
            subprocess.run,
            [*command, "--pack", "authzen", "--plan"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "+ authzen.cedar" in said.stdout
        assert not (directory / "authzen.cedar").exists()
        said = await asyncio.to_thread(
            subprocess.run, [*command, "--pack", "authzen"], capture_output=True, text=True, check=True
        )
        assert "Applied." in said.stdout
        assert (directory / "pep.toml").exists()
        neither = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
        assert neither.returncode == 2


async def test_the_sdk_names_things_as_the_enforcement_point_does(pep: Pep) -> None:
    client = Client(pep.plane.url, key=pep.key, timeout=20)
    assert (await client.acan('user::"alice"', "write", 'record::"record-1"')).allowed
    assert not (await client.acan('user::"bob"', "write", 'record::"record-1"')).allowed
    names = ['record::"record-1"', 'record::"record-2"', 'spaceship::"x"']
    assert [one.allowed for one in await client.acan_each('user::"alice"', "write", names)] == [
        True,
        False,
        False,
    ]
    await client.aclose()


async def test_two_askers_at_once_get_records_of_their_own(pep: Pep) -> None:
    """Batches are decided in threads; ids and records stay apart, and each item has one."""
    batch = asked(BOB, READ, FIRST, evaluations=[{}, {"action": WRITE}] * 20)
    answers = await asyncio.gather(*(pep.post(EVALUATIONS, batch) for _ in range(4)))
    for answer in answers:
        assert [item["decision"] for item in answer.json["evaluations"]] == [True, False] * 20
    records = [r for r in await pep.records() if r["kind"] == "decision"]
    assert len(records) == 160
    assert len({record["id"] for record in records}) == 160
    assert sum(record["decision"] == "allow" for record in records) == 80
