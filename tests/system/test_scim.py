"""SCIM against a running control plane: what clients may say, what becomes of it, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from doorward.core.errors import AuditUnavailableError
from doorward.core.model import Entity, EntityUid
from support import scim_plane
from support.scim_plane import ENTERPRISE, GROUP, IDP, POSTURE, USER, Client

pytestmark = pytest.mark.asyncio(loop_scope="module")
uid = EntityUid.of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    async with scim_plane.running(groups=["scientists", "cleared", "platform", "team-*"]) as running:
        yield running


def entity(client: Client, kind: str, name: str) -> Entity:
    found = client.plane.services.directory.entity(uid(kind, name))
    assert found is not None
    return found


def replace(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


class TestPeople:
    async def test_a_joiner_arrives_with_attributes_and_identity(self, client: Client) -> None:
        made = await client.user(
            "ann@example.com", externalId="00u-ann", userType="Employee",
            emails=[{"value": "old@example.com"}, {"value": "ann@example.com", "primary": True}],
            **{ENTERPRISE: {"department": "risk"}},
        )  # fmt: skip
        ann = entity(client, "User", "ann")
        assert ann.attrs["email"] == "ann@example.com"
        assert (ann.attrs["department"], ann.attrs["employment"]) == ("risk", "employee")
        assert client.plane.services.directory.snapshot.principal_of(IDP, "00u-ann") == ann.uid
        answer = await client.send("GET", f"/Users/{made['id']}")
        assert answer.json["userName"] == "ann@example.com"
        assert answer.headers["etag"] == 'W/"1"'

    @pytest.mark.parametrize("form", ["path", "no path", "text", "put"])
    async def test_active_false_is_out_at_once(self, client: Client, form: str) -> None:
        made = await client.user(f"out-{form}")
        place = f"/Users/{made['id']}"
        forms: dict[str, Any] = {
            "path": replace("active", value=False),
            "no path": {"op": "replace", "value": {"active": False}},
            "text": {"op": "Replace", "path": "active", "value": "False"},
        }
        if form == "put":
            answer = await client.send("PUT", place, {**made, "active": False})
        else:
            answer = await client.patch(place, forms[form])
        assert answer.status in {200, 204}
        assert not client.plane.services.directory.snapshot.is_active(uid("User", f"out-{form}"))

    async def test_a_password_is_taken_nowhere(self, client: Client) -> None:
        made = await client.user("secretive", password="correct horse battery", roles=[{"value": "admin"}])
        assert "password" not in made
        assert "roles" not in made
        state = b"".join(f.read_bytes() for f in client.plane.data.rglob("*") if f.is_file())
        assert b"correct horse" not in state
        assert entity(client, "User", "secretive").parents == frozenset()

    async def test_deleted_means_404_and_out(self, client: Client) -> None:
        made = await client.user("leaver", externalId="00u-leaver")
        place = f"/Users/{made['id']}"
        assert (await client.send("DELETE", place)).status == 204
        assert (await client.send("GET", place)).status == 404
        assert (await client.patch(place, replace("active", value=True))).status == 404
        snapshot = client.plane.services.directory.snapshot
        assert not snapshot.is_active(uid("User", "leaver"))
        assert snapshot.principal_of(IDP, "00u-leaver") is None
        again = await client.user("leaver", externalId="00u-other")
        assert again["id"] != made["id"]
        assert snapshot.entity(uid("User", "leaver")) is not None
        assert client.plane.services.directory.snapshot.principal_of(IDP, "00u-other") == uid(
            "User", "leaver#2"
        )

    async def test_a_name_or_identity_that_is_taken_is_409(self, client: Client) -> None:
        await client.user("taken", externalId="00u-taken")
        for body in (
            {"schemas": [USER], "userName": "TAKEN"},
            {"schemas": [USER], "userName": "other-name", "externalId": "00u-taken"},
            {"schemas": [USER], "userName": "root"},
        ):
            answer = await client.send("POST", "/Users", body)
            assert (answer.status, answer.json["scimType"]) == (409, "uniqueness"), answer


class TestGroups:
    async def test_groups_nested_groups_and_what_they_are_worth(self, client: Client) -> None:
        dana = await client.user("dana")
        inner = await client.group("team-inner", dana["id"])
        outer = await client.group("scientists", inner["id"])
        assert uid("Role", "data-scientist") in entity(client, "User", "dana").parents
        shown = (await client.send("GET", f"/Users/{dana['id']}")).json["groups"]
        assert {(one["display"], one["type"]) for one in shown} == {
            ("team-inner", "direct"), ("scientists", "indirect"),
        }  # fmt: skip
        path = f'members[value eq "{inner["id"]}"]'
        assert (await client.patch(f"/Groups/{outer['id']}", {"op": "remove", "path": path})).status == 204
        assert uid("Role", "data-scientist") not in entity(client, "User", "dana").parents

    async def test_members_are_added_and_removed_in_every_form(self, client: Client) -> None:
        one, two, three = [await client.user(f"m{n}") for n in range(3)]
        group = await client.group("team-forms", one["id"])
        place = f"/Groups/{group['id']}"

        async def members() -> set[str]:
            return {m["value"] for m in (await client.send("GET", place)).json.get("members", [])}

        await client.patch(place, {"op": "add", "path": "members", "value": [{"value": two["id"]}]})
        assert await members() == {one["id"], two["id"]}
        await client.patch(place, {"op": "Add", "value": {"members": [{"value": three["id"]}]}})
        # As Entra removes: the member stands in the value.
        await client.patch(place, {"op": "Remove", "path": "members", "value": [{"value": one["id"]}]})
        assert await members() == {two["id"], three["id"]}
        await client.patch(place, replace("members", [{"value": one["id"]}]))
        assert await members() == {one["id"]}
        await client.patch(place, {"op": "remove", "path": "members"})
        assert await members() == set()

    async def test_a_loop_is_refused(self, client: Client) -> None:
        one = await client.group("team-loop1")
        two = await client.group("team-loop2", one["id"])
        add = {"op": "add", "path": "members", "value": [{"value": two["id"]}]}
        assert (await client.patch(f"/Groups/{one['id']}", add)).status == 400

    async def test_clearance_comes_from_the_map_alone(self, client: Client) -> None:
        eve = await client.user("clear-eve", clearance=3)
        assert entity(client, "User", "clear-eve").attrs["clearance"] == 0
        await client.group("cleared", eve["id"])
        assert entity(client, "User", "clear-eve").attrs["clearance"] == 2

    async def test_a_group_outside_the_list_is_refused(self, client: Client) -> None:
        answer = await client.send("POST", "/Groups", {"schemas": [GROUP], "displayName": "wheel"})
        assert answer.status == 403

    async def test_a_member_of_another_client_cannot_be_named(self, client: Client) -> None:
        theirs = await client.service("other").user("theirs")
        group = await client.group("team-mine")
        add = {"op": "add", "path": "members", "value": [{"value": theirs["id"]}]}
        assert (await client.patch(f"/Groups/{group['id']}", add)).status == 400


class TestNoAdmin:
    async def test_a_client_makes_no_governor_by_a_group(self, client: Client) -> None:
        mallory = await client.user("mallory")
        body = {"schemas": [GROUP], "displayName": "platform", "members": [{"value": mallory["id"]}]}
        answer = await client.send("POST", "/Groups", body)
        assert answer.status == 403
        assert 'User::"mallory" could govern' in answer.json["detail"]
        group = await client.group("platform")
        add = {"op": "add", "path": "members", "value": [{"value": mallory["id"]}]}
        assert (await client.patch(f"/Groups/{group['id']}", add)).status == 403
        assert entity(client, "User", "mallory").parents == frozenset()

    async def test_not_by_nesting_either(self, client: Client) -> None:
        mallory = await client.user("mallory-2")
        inner = await client.group("team-harmless", mallory["id"])
        groups = (await client.send("GET", '/Groups?filter=displayName%20eq%20"platform"')).json["Resources"]
        place = (
            f"/Groups/{groups[0]['id']}" if groups else f"/Groups/{(await client.group('platform'))['id']}"
        )
        add = {"op": "add", "path": "members", "value": [{"value": inner["id"]}]}
        assert (await client.patch(place, add)).status == 403

    async def test_somebody_who_governs_keeps_her_identity(self, client: Client) -> None:
        boss = await client.user("boss", externalId="00u-boss")
        org = "users: { boss: { roles: [admin] } }"
        status, _ = await client.plane.operator("POST", "/api/v1/apply", {"org": org})
        assert status == 200
        relinked = await client.patch(f"/Users/{boss['id']}", replace("externalId", "00u-evil"))
        assert relinked.status == 403
        assert client.plane.services.directory.snapshot.principal_of(IDP, "00u-evil") is None
        # Taking her out and letting her in again as herself is the source's right.
        assert (await client.patch(f"/Users/{boss['id']}", replace("active", value=False))).status == 204
        assert (await client.patch(f"/Users/{boss['id']}", replace("active", value=True))).status == 204
        assert client.plane.services.directory.snapshot.is_active(uid("User", "boss"))

    async def test_anybody_else_is_relinked_and_the_old_identity_ends(self, client: Client) -> None:
        plain = await client.user("plain", externalId="00u-plain")
        await client.patch(f"/Users/{plain['id']}", replace("externalId", "00u-plain2"))
        snapshot = client.plane.services.directory.snapshot
        assert snapshot.principal_of(IDP, "00u-plain") is None
        assert snapshot.principal_of(IDP, "00u-plain2") == uid("User", "plain")

    async def test_a_declared_user_is_not_taken_over(self, client: Client) -> None:
        answer = await client.send(
            "POST", "/Users", {"schemas": [USER], "userName": "root", "externalId": "x"}
        )
        assert answer.status == 409
        assert client.plane.services.directory.snapshot.principal_of(IDP, "x") is None


class TestDevices:
    async def test_posture_arrives_and_goes(self, client: Client) -> None:
        owner = await client.user("device-owner")
        made = await client.device(
            "laptop-1", managed=True, compliant=True, platform="linux", owner={"value": owner["id"]}
        )
        laptop = entity(client, "Device", "laptop-1")
        assert (laptop.attrs["managed"], laptop.attrs["compliant"]) == (True, True)
        assert (laptop.attrs["platform"], laptop.attrs["owner"]) == ("linux", uid("User", "device-owner"))
        await client.patch(f"/Devices/{made['id']}", replace(f"{POSTURE}:compliant", value=False))
        assert entity(client, "Device", "laptop-1").attrs["compliant"] is False

    async def test_saying_the_same_again_renews_it(self, client: Client) -> None:
        made = await client.device("laptop-2", compliant=True)
        registry = client.plane.services.directory.registry
        before = registry.stated(uid("Device", "laptop-2"))["scim:okta"]
        answer = await client.patch(f"/Devices/{made['id']}", replace(f"{POSTURE}:compliant", value=True))
        assert answer.status == 204
        after = client.plane.services.directory.registry.stated(uid("Device", "laptop-2"))["scim:okta"]
        assert after.seen > before.seen
        assert after.max_age == 3600


class TestProtocol:
    async def test_if_match_holds_a_change_to_its_version(self, client: Client) -> None:
        made = await client.user("tagged")
        place = f"/Users/{made['id']}"
        first = await client.patch(place, replace("title", "a"), If_Match='W/"1"')
        late = await client.patch(place, replace("title", "b"), If_Match='W/"1"')
        assert (first.status, late.status) == (204, 412)
        assert (await client.send("GET", place, If_None_Match='W/"2"')).status == 304
        assert (await client.send("DELETE", place, If_Match='W/"1"')).status == 412

    async def test_filters_sorting_and_pages(self, client: Client) -> None:
        for number in (2, 0, 1):
            await client.user(f"page-{number}", title=f"t{number}")
        query = 'filter=userName%20sw%20"page-"&sortBy=title&sortOrder=descending&startIndex=2&count=1'
        page = (await client.send("GET", f"/Users?{query}")).json
        assert (page["totalResults"], page["itemsPerPage"], page["startIndex"]) == (3, 1, 2)
        assert page["Resources"][0]["userName"] == "page-1"
        both = {"filter": 'title eq "t0" or not (userName pr)', "attributes": ["userName"]}
        found = (await client.send("POST", "/Users/.search", both)).json["Resources"]
        assert [one["userName"] for one in found] == ["page-0"]
        wrong = await client.send("GET", "/Users?filter=userName%20zz%201")
        assert (wrong.status, wrong.json["scimType"]) == (400, "invalidFilter")

    async def test_bulk_makes_a_group_of_users_it_makes(self, client: Client) -> None:
        def post(path: str, bulk_id: str, **data: Any) -> dict[str, Any]:
            return {"method": "POST", "path": path, "bulkId": bulk_id, "data": data}

        members = [{"value": "bulkId:u"}]
        body = {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
            "Operations": [
                post("/Users", "u", schemas=[USER], userName="bulk"),
                post("/Groups", "g", schemas=[GROUP], displayName="team-bulk", members=members),
                post("/Users", "r", schemas=[USER], userName="root"),
            ],
        }
        answer = await client.send("POST", "/Bulk", body)
        assert [str(one["status"]) for one in answer.json["Operations"]] == ["201", "201", "409"]
        assert uid("Group", "team-bulk") in entity(client, "User", "bulk").parents

    @pytest.mark.parametrize(
        "body",
        [
            b'{"schemas":["%b"],"userName":"two","userName":"three"}' % USER.encode(),
            b'{"schemas":["%b"],"userName":"two","USERNAME":"three"}' % USER.encode(),
            b'{"schemas":["%b"],"userName":"two","active":true,"Active":false}' % USER.encode(),
            b'{"a":' * 5000,
            b"\xff",
            b"[]",
        ],
    )
    async def test_a_body_with_two_readings_is_400(self, client: Client, body: bytes) -> None:
        answer = await client.send("POST", "/Users", body)
        assert answer.status == 400, answer
        assert answer.json["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]

    @pytest.mark.parametrize("name", ["", " ", "x" * 600, "a\nb", "a\u0000b", "a\u202eb"])
    async def test_a_name_no_log_could_show_is_400(self, client: Client, name: str) -> None:
        answer = await client.send("POST", "/Users", {"schemas": [USER], "userName": name})
        assert answer.status == 400, answer

    async def test_two_changes_at_once_both_hold(self, client: Client) -> None:
        users = [await client.user(f"race-{n}") for n in range(4)]
        group = await client.group("team-race")
        adding = (
            client.patch(
                f"/Groups/{group['id']}", {"op": "add", "path": "members", "value": [{"value": u["id"]}]}
            )
            for u in users
        )
        assert {answer.status for answer in await asyncio.gather(*adding)} == {204}
        members = (await client.send("GET", f"/Groups/{group['id']}")).json["members"]
        assert len(members) == 4


class TestWhoMay:
    @pytest.mark.parametrize("key", ["", "Bearer dw_nope", "Basic b2t0YTpwdw=="])
    async def test_no_key_no_entry(self, client: Client, key: str) -> None:
        answer = await client.send("GET", "/Users", Authorization=key)
        assert answer.status == 401
        assert "www-authenticate" in answer.headers
        assert answer.json["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]

    async def test_a_service_that_is_no_provisioning_client_is_refused_and_recorded(
        self, client: Client
    ) -> None:
        stranger = client.service("stranger")
        answer = await stranger.send("GET", "/Users")
        assert answer.status == 403
        assert any(
            record["decision"] == "deny" and record["principal"] == 'Service::"stranger"'
            for record in await client.records()
        )

    async def test_what_one_client_brings_another_does_not_see(self, client: Client) -> None:
        mine = await client.user("only-mine")
        other = client.service("other")
        assert (await other.send("GET", f"/Users/{mine['id']}")).status == 404
        assert (await other.send("DELETE", f"/Users/{mine['id']}")).status == 404
        assert all(
            u["userName"] != "only-mine" for u in (await other.send("GET", "/Users")).json["Resources"]
        )
        assert (
            await other.send("POST", "/Users", {"schemas": [USER], "userName": "only-mine"})
        ).status == 409

    async def test_every_change_is_on_record_with_what_it_changed(self, client: Client) -> None:
        made = await client.user("recorded")
        await client.patch(f"/Users/{made['id']}", replace("active", value=False))
        records = [r for r in await client.records() if r["detail"] == f"PATCH /Users/{made['id']}"]
        assert len(records) == 1
        record = records[0]
        assert (record["principal"], record["action"], record["resource"]) == (
            'Service::"okta"', "assign", 'Control::"directory"',
        )  # fmt: skip
        assert record["changes"]["source"] == "scim:okta"
        assert record["changes"]["items"] == [
            {"op": "change", "kind": "User", "name": "recorded", "changes": {"active": [True, False]}}
        ]

    async def test_a_revoked_key_ends_it(self, client: Client) -> None:
        other = client.service("other")
        assert (await other.send("GET", "/Users")).status == 200
        directory = client.plane.services.directory
        for key in directory.keys(uid("Service", "other")):
            directory.revoke_key(key.id)
        assert (await other.send("GET", "/Users")).status == 401

    async def test_a_browser_cannot_be_made_to_provision(self, client: Client) -> None:
        for header in (
            {"Origin": "http://evil.example"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Cookie": "a=b"},
        ):
            answer = await client.send("POST", "/Users", {"schemas": [USER], "userName": "csrf"}, **header)
            assert answer.status == 403


async def test_without_a_policy_nothing_is_provisioned() -> None:
    async with scim_plane.running(policies=scim_plane.console_plane.POLICIES) as client:
        answer = await client.send("POST", "/Users", {"schemas": [USER], "userName": "x"})
        assert answer.status == 403
        assert "no policy lets" in answer.json["detail"]
        assert client.plane.services.directory.entity(uid("User", "x")) is None


async def test_a_change_that_cannot_be_recorded_does_not_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scim_plane.running() as client:

        async def full(_record: object) -> None:
            raise AuditUnavailableError("the log cannot be written")

        monkeypatch.setattr(client.plane.services.audit, "write", full)
        answer = await client.send("POST", "/Users", {"schemas": [USER], "userName": "unrecorded"})
        assert answer.status == 503
        assert client.plane.services.directory.entity(uid("User", "unrecorded")) is None


async def test_govern_true_lets_a_mapped_role_govern() -> None:
    async with scim_plane.running(govern=True, roles={"admins": ["admin"]}) as client:
        ann = await client.user("ann")
        await client.group("admins", ann["id"])
        assert uid("Role", "admin") in entity(client, "User", "ann").parents
