"""Lists of the management API page by page, and changes made only onto the state they were made against."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from doorward.cli.connection import _UnixConnection, every
from doorward.core.model import EntityUid
from support.console_plane import Plane, running

PEOPLE = 7
ORG = "users:\n" + "".join(f"  u{n}: {{ roles: [data-scientist] }}\n" for n in range(PEOPLE))


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    with capture_logs():
        async with running() as one:
            yield one


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, content = answer.status, answer.headers, answer.read()
        self.content = content
        self.json: Any = json.loads(content) if content else None


def ask(plane: Plane, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection = _UnixConnection(plane.data / "control.sock")
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, None if body is None else json.dumps(body),
                           {"Content-Type": "application/json", **sent})  # fmt: skip
        return Answer(connection.getresponse())
    finally:
        connection.close()


async def asked(plane: Plane, *arguments: Any, **headers: str) -> Answer:
    return await asyncio.to_thread(ask, plane, *arguments, **headers)


async def applied(plane: Plane, org: str = ORG, **headers: str) -> Answer:
    return await asked(plane, "POST", "/api/v1/apply", {"org": org}, **headers)


async def test_following_next_gives_every_person_once_in_order(plane: Plane) -> None:
    await applied(plane)
    seen, path = [], "/api/v1/people?limit=3"
    while path:
        page = await asked(plane, "GET", path)
        assert len(page.json) <= 3
        seen += [person["name"] for person in page.json]
        link = re.search(r'<([^>]+)>; rel="next"', page.headers.get("Link", ""))
        path = link[1] if link else ""
    assert seen == [f"u{n}" for n in range(PEOPLE)]


async def test_who_joins_between_two_pages_shifts_nobody(plane: Plane) -> None:
    await applied(plane)
    first = await asked(plane, "GET", "/api/v1/people?limit=3")
    await applied(plane, "users:\n  a-newcomer: {}\n")
    following = re.search(r"<([^>]+)>", first.headers["Link"])
    assert following
    second = await asked(plane, "GET", following[1])
    assert [person["name"] for person in second.json] == ["u3", "u4", "u5"]


async def test_the_command_line_reads_all_pages(plane: Plane) -> None:
    await applied(plane)
    found = await asyncio.to_thread(every, plane.data, "/api/v1/people?limit=2")
    assert len(found) == PEOPLE


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=%00", "after=_w"])
async def test_a_page_nobody_offered_is_a_clear_error(plane: Plane, query: str) -> None:
    answer = await asked(plane, "GET", f"/api/v1/people?{query}")
    assert answer.status == 400
    assert answer.json["code"] == "invalid_request"


@pytest.mark.parametrize("noun", ["people", "assets", "devices", "keys"])
async def test_an_unchanged_list_is_304_without_a_body(plane: Plane, noun: str) -> None:
    first = await asked(plane, "GET", f"/api/v1/{noun}")
    again = await asked(plane, "GET", f"/api/v1/{noun}", if_none_match=first.headers["ETag"])
    assert (again.status, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    await applied(plane)
    after = await asked(plane, "GET", f"/api/v1/{noun}", if_none_match=first.headers["ETag"])
    assert after.status == 200


async def test_one_object_has_an_address_and_a_state(plane: Plane) -> None:
    await applied(plane)
    one = await asked(plane, "GET", "/api/v1/people/u3")
    assert one.json["uid"] == 'User::"u3"'
    full = await asked(plane, "GET", "/api/v1/people/User::%22u3%22", if_none_match=one.headers["ETag"])
    assert full.status == 304
    assert (await asked(plane, "GET", "/api/v1/people/nobody")).status == 404


async def test_a_change_against_an_older_state_is_412_and_changes_nothing(plane: Plane) -> None:
    seen = (await asked(plane, "GET", "/api/v1/people")).headers["ETag"]
    assert (await applied(plane, if_match=seen)).status == 200
    version = plane.services.directory.snapshot.version
    refused = await applied(plane, "users:\n  late: {}\n", if_match=seen)
    assert (refused.status, refused.json["code"]) == (412, "precondition_failed")
    assert "version" in refused.json["detail"]
    assert plane.services.directory.snapshot.version == version


async def test_every_change_obeys_if_match_also_those_without_a_plan(plane: Plane) -> None:
    await applied(plane)
    old = '"v0"'
    made = await asked(plane, "POST", "/api/v1/keys", {"user": "u1"}, if_match=old)
    assert made.status == 412
    assert plane.services.directory.keys() == []


async def test_of_two_changes_against_one_state_exactly_one_is_made(plane: Plane) -> None:
    await applied(plane)
    tag = (await asked(plane, "GET", "/api/v1/people")).headers["ETag"]
    changes = [applied(plane, f"users:\n  racer{n}: {{}}\n", if_match=tag) for n in range(3)]
    statuses = sorted(answer.status for answer in await asyncio.gather(*changes))
    assert statuses == [200, 412, 412]
    names = {person.uid.id for person in plane.services.directory.people()}
    assert len([name for name in names if name.startswith("racer")]) == 1


async def test_a_change_without_if_match_after_one_with_it_is_not_bound_by_it(plane: Plane) -> None:
    await applied(plane, if_match="*")
    old = '"v0"'
    assert (await applied(plane, "users:\n  one: {}\n", if_match=old)).status == 412
    assert (await applied(plane, "users:\n  one: {}\n")).status == 200


@pytest.mark.parametrize("tag", ['W/"v1"', "v1", '"v"', '"v1", nonsense', '""'])
async def test_a_tag_that_is_not_ours_is_refused_not_ignored(plane: Plane, tag: str) -> None:
    answer = await applied(plane, if_match=tag)
    assert (answer.status, plane.services.directory.people()) == (400, [])


async def test_nobody_is_admin_and_auditor_at_once(plane: Plane) -> None:
    refused = await applied(plane, "users:\n  ada: { roles: [admin, auditor] }\n")
    assert refused.status == 409
    assert "admin and auditor at once" in refused.json["detail"]
    assert (await applied(plane, "users:\n  ada: { roles: [admin] }\n")).status == 200
    assert (await applied(plane, "users:\n  ada: { roles: [auditor] }\n")).status == 200


async def test_a_lowered_asset_is_raised_again(plane: Plane) -> None:
    org = """
users: { omar: {} }
assets:
  Dataset::"store/a": { owner: omar, sensitivity: 3 }
  Dataset::"store/a/b": { owner: omar, sensitivity: 1 }
"""
    await applied(plane, org)
    name = {"asset": 'Dataset::"store/a/b"'}
    assert (await asked(plane, "GET", "/api/v1/assets/store/a/b")).json["sensitivity"] == 3
    lowered = await asked(plane, "POST", "/api/v1/assets/lower", {**name, "reason": "names taken out"})
    assert (lowered.json["sensitivity"], lowered.json["lowered"]) == (1, True)
    raised = await asked(plane, "POST", "/api/v1/assets/raise", name)
    assert (raised.json["sensitivity"], raised.json["lowered"]) == (3, False)


async def test_signing_out_by_command_is_on_record_and_known_at_once(plane: Plane) -> None:
    await applied(plane)
    answer = await asked(plane, "POST", "/api/v1/people/u1/sign-out", {})
    assert answer.status == 200
    who = EntityUid.of("User", "u1")
    out = plane.services.directory.snapshot.sign_out_of(who)
    assert out is not None
    assert out.before is not None
    mfa = await asked(plane, "POST", "/api/v1/people/u1/sign-out", {"mfa_only": True})
    assert mfa.json["mfa_before"] >= mfa.json["before"] == answer.json["before"]
    assert (await asked(plane, "POST", "/api/v1/people/nobody/sign-out", {})).status == 404
