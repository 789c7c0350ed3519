"""A real slapd is followed: joiners, movers and leavers in seconds; what goes wrong takes nobody's place."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from sansldap import LDAPFilter

from doorward.core.errors import DoorwardError, InvalidConfigError, UnavailableError
from doorward.core.secret import Secret
from doorward.directory.ldap.entries import DEFAULTS
from doorward.directory.ldap.entries import Server as Kind
from doorward.directory.ldap.wire import Connection, Endpoint
from support import ldap_plane, ldap_servers
from support.ldap_plane import Followed, following, uid
from support.ldap_servers import PASSWORD, SLAPD, SUFFIX, Server
from support.scim_plane import IDP

pytestmark = [
    pytest.mark.skipif(SLAPD is None, reason="slapd is not installed: make setup-system"),
    pytest.mark.enable_socket,
]
SECONDS = 5.0


@pytest.fixture
def slapd() -> Iterator[Server]:
    with ldap_servers.slapd() as server:
        yield server


@pytest.fixture
async def corp(slapd: Server) -> AsyncIterator[Followed]:
    async with following(slapd, "openldap") as followed:
        yield followed


class TestInStep:
    async def test_a_joiner_a_mover_and_a_leaver_arrive_within_five_seconds(
        self, slapd: Server, corp: Followed
    ) -> None:
        await corp.arrives(lambda: corp.follower.state.seen)
        dana = slapd.person("dana", mail="dana@corp.test", ou="risk", employeeType="Contractor")
        assert await corp.arrives(lambda: corp.active("dana")) < SECONDS
        attrs = corp.entity("User", "dana").attrs  # type: ignore[union-attr]
        assert (attrs["email"], attrs["department"], attrs["employment"]) == (
            "dana@corp.test", "risk", "contractor",
        )  # fmt: skip
        slapd.group("scientists", dana)
        assert await corp.arrives(lambda: 'Role::"data-scientist"' in corp.parents("dana")) < SECONDS
        slapd.modify(f"dn: {dana}\nchangetype: modify\nreplace: ou\nou: sales\n")
        assert (
            await corp.arrives(lambda: corp.entity("User", "dana").attrs["department"] == "sales") < SECONDS  # type: ignore[union-attr]
        )
        slapd.delete(dana)
        assert await corp.arrives(lambda: not corp.active("dana")) < SECONDS

    async def test_a_nested_group_change_arrives_within_five_seconds(
        self, slapd: Server, corp: Followed
    ) -> None:
        dana = slapd.person("dana")
        inner = slapd.group("inner", dana)
        middle = slapd.group("middle", inner)
        outer = slapd.group("scientists")
        await corp.arrives(lambda: 'Group::"inner"' in corp.parents("dana"))
        assert 'Role::"data-scientist"' not in corp.parents("dana")
        slapd.join(outer, middle)
        assert await corp.arrives(lambda: 'Role::"data-scientist"' in corp.parents("dana")) < SECONDS
        slapd.leave(outer, middle)
        assert await corp.arrives(lambda: 'Role::"data-scientist"' not in corp.parents("dana")) < SECONDS

    async def test_a_loop_of_groups_survives(self, slapd: Server, corp: Followed) -> None:
        dana = slapd.person("dana")
        one = slapd.group("scientists", dana)
        two = slapd.group("two", one)
        slapd.join(one, two)
        slapd.join(two, two)
        await corp.arrives(lambda: "lies in itself" in corp.follower.state.problem)
        await corp.arrives(lambda: 'Role::"data-scientist"' in corp.parents("dana"))

    async def test_a_renamed_entry_stays_the_same_person(self, slapd: Server, corp: Followed) -> None:
        dana = slapd.person("dana")
        slapd.group("scientists", dana)
        await corp.arrives(lambda: 'Role::"data-scientist"' in corp.parents("dana"))
        slapd.modify(f"dn: {dana}\nchangetype: modrdn\nnewrdn: uid=d2\ndeleteoldrdn: 1\n")
        objects = corp.plane.services.directory.registry
        await corp.arrives(lambda: objects_named(corp, "d2"))
        assert corp.entity("User", "d2") is None
        assert corp.active("dana")
        assert objects is not None

    async def test_a_locked_account_is_out(self, slapd: Server, corp: Followed) -> None:
        dana = slapd.person("dana")
        await corp.arrives(lambda: corp.active("dana"))
        slapd.modify(
            f"dn: {dana}\nchangetype: modify\n"
            "add: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n"
        )
        assert await corp.arrives(lambda: not corp.active("dana")) < SECONDS

    async def test_more_than_a_page_arrives_whole(self, slapd: Server) -> None:
        names = [f"user{number:04}" for number in range(1203)]
        slapd.modify(
            "".join(
                f"dn: uid={n},ou=people,{SUFFIX}\nchangetype: add\nobjectClass: inetOrgPerson\n"
                f"uid: {n}\ncn: {n}\nsn: {n}\n\n"
                for n in names
            )
        )
        everyone = [f"uid={n},ou=people,{SUFFIX}" for n in names]
        slapd.group("scientists", *everyone)
        async with following(slapd, "openldap") as corp:
            group = uid("Group", "scientists")
            registry = corp.plane.services.directory
            await corp.arrives(lambda: len(registry.registry.members("ldap:corp", group)) == 1203, 60)
            assert 'Role::"data-scientist"' in corp.parents("user1202")

    async def test_subjects_sign_in_by_the_configured_attribute(self, slapd: Server) -> None:
        slapd.person("dana", employeeNumber="4711")
        async with following(slapd, "openldap", issuer=IDP, attributes={"subject": "employeeNumber"}) as corp:
            await corp.arrives(lambda: corp.active("dana"))
            assert corp.plane.services.directory.snapshot.principal_of(IDP, "4711") == uid("User", "dana")


class TestFailing:
    async def test_a_server_that_is_gone_changes_nothing_and_heals_by_itself(self, slapd: Server) -> None:
        slapd.person("dana")
        async with following(slapd, "openldap") as corp:
            await corp.arrives(lambda: corp.active("dana"))
            slapd.process.send_signal(signal.SIGSTOP)
            slapd.process.kill()
            slapd.process.wait()
            await corp.arrives(lambda: corp.follower.state.problem)
            assert corp.active("dana")
            sources = (await corp.plane.operator("GET", "/api/v1/sources"))[1]
            assert [one["name"] for one in sources] == ["ldap:corp"]
            assert sources[0]["problem"]
            assert sources[0]["age"] >= 0

    async def test_stale_means_out_and_back_again(self, slapd: Server) -> None:
        slapd.person("dana")
        async with following(slapd, "openldap", max_age=1.0) as corp:
            aging = asyncio.create_task(ldap_plane.sources.keep_aging(corp.plane.services.directory))
            await corp.arrives(lambda: corp.active("dana"))
            slapd.process.send_signal(signal.SIGSTOP)
            await corp.arrives(lambda: not corp.active("dana"))
            slapd.process.send_signal(signal.SIGCONT)
            await corp.arrives(lambda: corp.active("dana"), 40)
            aging.cancel()

    async def test_an_answer_that_hides_people_takes_nobody_out(self, slapd: Server) -> None:
        for number in range(20):
            slapd.person(f"user{number}")
        async with following(slapd, "openldap") as corp:
            await corp.arrives(lambda: corp.active("user19"))
            for number in range(12):
                slapd.delete(f"uid=user{number},ou=people,{SUFFIX}")
            await corp.arrives(lambda: corp.follower.state.held_back > 5, 30)
            await asyncio.sleep(1)
            remaining = [n for n in range(20) if corp.active(f"user{n}")]
            assert len(remaining) > 8
            slapd.person("newcomer")
            await corp.arrives(lambda: corp.active("newcomer"), 30)
            status, told = await corp.plane.operator("POST", "/api/v1/sources/ldap:corp/confirm")
            assert status == 200, told
            await corp.arrives(lambda: not any(corp.active(f"user{n}") for n in range(12)), 30)
            assert all(corp.active(f"user{n}") for n in range(12, 20))
            await corp.arrives(lambda: corp.follower.state.held_back == 0, 30)

    async def test_a_size_limit_is_a_failure_and_not_an_empty_directory(self) -> None:
        access = f'limits dn.exact="cn=reader,{SUFFIX}" size.prtotal=3 size=3'
        with ldap_servers.slapd(sizelimit="3", access=access) as server:
            for number in range(6):
                server.person(f"user{number}")
            async with following(server, "openldap") as corp:
                await corp.arrives(
                    lambda: "size_limit_exceeded" in corp.follower.state.problem.replace(" ", "_")
                )
                assert corp.entity("User", "user0") is None

    async def test_somebody_the_file_declares_is_left_alone_and_told(self, slapd: Server) -> None:
        slapd.person("root")
        slapd.person("dana")
        async with following(slapd, "openldap", org="users: { root: { roles: [admin] } }") as corp:
            await corp.arrives(lambda: corp.active("dana"))
            assert "root: User" in corp.follower.state.problem
            assert corp.parents("root") == {'Role::"admin"'}

    async def test_nobody_governs_by_a_group_of_the_directory(self, slapd: Server, corp: Followed) -> None:
        mallory = slapd.person("mallory")
        dana = slapd.person("dana")
        platform = slapd.group("platform")
        await corp.arrives(lambda: corp.entity("Group", "platform"))
        slapd.join(platform, mallory)
        await corp.arrives(lambda: "could govern" in corp.follower.state.problem)
        assert 'Group::"platform"' not in corp.parents("mallory")
        # The others' changes still arrive, and a leaver still leaves.
        slapd.modify(f"dn: {dana}\nchangetype: modify\nreplace: ou\nou: sales\n")
        await corp.arrives(lambda: corp.entity("User", "dana").attrs.get("department") == "sales")  # type: ignore[union-attr]
        slapd.delete(mallory)
        await corp.arrives(lambda: not corp.active("mallory"))

    async def test_a_change_is_on_record(self, slapd: Server, corp: Followed) -> None:
        slapd.person("dana")
        await corp.arrives(lambda: corp.active("dana"))
        page = await asyncio.to_thread(
            corp.plane.services.reader.latest, 50, ldap_plane.scim_plane.Query(kind="admin")
        )
        assert any(
            record["principal"] == "ldap:corp" and record["changes"]["items"][0]["name"] == "dana"
            for record in page.records
        )


class TestWire:
    def endpoint(self, server: Server, **more: object) -> Endpoint:
        fields = {"url": server.url, "bind_dn": server.bind_dn, "password": Secret(PASSWORD), "ca": server.ca}
        return Endpoint(**{**fields, **more})  # type: ignore[arg-type]

    def test_an_empty_password_never_leaves_the_house(self, slapd: Server) -> None:
        with pytest.raises(InvalidConfigError, match="no password"):
            Connection(self.endpoint(slapd, password=Secret("")))

    def test_a_wrong_password_and_a_wrong_authority_are_refused(self, slapd: Server) -> None:
        with pytest.raises(UnavailableError, match="invalid_credentials"):
            Connection(self.endpoint(slapd, password=Secret("wrong")))
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            Connection(self.endpoint(slapd, ca=None))
        with pytest.raises(UnavailableError, match=r"localhost|mismatch|Hostname"):
            Connection(self.endpoint(slapd, url=slapd.url.replace("127.0.0.1", "localhost")))

    def test_start_tls_is_as_private(self, slapd: Server) -> None:
        with Connection(self.endpoint(slapd, url=slapd.plain, start_tls=True)) as connection:
            assert connection.read(SUFFIX, ("o",)) is not None
        with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            Connection(self.endpoint(slapd, url=slapd.plain, start_tls=True, ca=None))

    def test_no_name_becomes_part_of_a_filter(self, slapd: Server) -> None:
        slapd.person("dana")
        odd = f"cn=a)(objectClass=*,ou=people,{SUFFIX}"
        slapd.modify(
            f"dn: {odd}\nchangetype: add\nobjectClass: inetOrgPerson\n"
            "uid: *)(uid=*\ncn: a)(objectClass=*\nsn: x\n"
        )
        with Connection(self.endpoint(slapd)) as connection:
            wanted = LDAPFilter.from_string(DEFAULTS[Kind.OPENLDAP]["user_filter"])
            found = {entry.text("uid") for entry in connection.search(SUFFIX, wanted, ("uid",))}
        assert found == {"dana", "*)(uid=*"}

    def test_a_referral_is_not_followed(self, slapd: Server) -> None:
        slapd.modify(
            f"dn: ou=elsewhere,{SUFFIX}\nchangetype: add\n"
            "objectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\nref: ldap://127.0.0.1:9/dc=evil\n"
        )
        slapd.person("dana")
        with Connection(self.endpoint(slapd)) as connection:
            wanted = LDAPFilter.from_string("(objectClass=inetOrgPerson)")
            assert [entry.text("uid") for entry in connection.search(SUFFIX, wanted, ("uid",))] == ["dana"]

    def test_a_missing_base_is_a_failure(self, slapd: Server) -> None:
        with Connection(self.endpoint(slapd)) as connection, pytest.raises(DoorwardError):
            list(connection.search("dc=nowhere", LDAPFilter.from_string("(objectClass=*)"), ("uid",)))


def objects_named(corp: Followed, name: str) -> bool:
    return corp.plane.services.directory.registry.named("ldap:corp", "User", name) is not None
