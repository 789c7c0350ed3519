"""A real Active Directory domain controller (Samba) is followed, nested groups and ended accounts too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio

from doorward.core.errors import UnavailableError
from doorward.core.secret import Secret
from doorward.directory.ldap.wire import Connection, Endpoint
from support import ldap_servers
from support.ldap_plane import Followed, following, uid
from support.ldap_servers import PASSWORD, Server, why_no_samba
from support.scim_plane import IDP

pytestmark = [
    pytest.mark.skipif(bool(why_no_samba()), reason=why_no_samba() or "-"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("samba"),
]
SECONDS = 5.0


@pytest.fixture(scope="module")
def domain() -> Iterator[Server]:
    with ldap_servers.samba() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def corp(domain: Server) -> AsyncIterator[Followed]:
    options = {"attributes": {"subject": "userPrincipalName"}, "issuer": IDP}
    # What every domain has anyway; its built-in people and groups stay outside.
    base = {"base": f"OU=corp,{domain.base}"}
    domain.tool("ou", "create", f"OU=corp,{domain.base}")
    async with following(domain, "ad", **options, **base) as followed:
        await followed.arrives(lambda: followed.follower.state.seen, 60)
        yield followed


async def tool(domain: Server, *arguments: str) -> None:
    await asyncio.to_thread(domain.tool, *arguments)


async def person(domain: Server) -> str:
    name = f"u{uuid4().hex[:8]}"
    await tool(
        domain, "user", "create", name, "Passw0rd!x1", "--userou=OU=corp", "--mail-address=a@corp.test"
    )
    return name


async def group(domain: Server, name: str, *members: str) -> None:
    await tool(domain, "group", "add", name, "--groupou=OU=corp")
    if members:
        await tool(domain, "group", "addmembers", name, ",".join(members))


async def test_a_joiner_arrives_with_her_identity_and_leaves_when_deleted(
    domain: Server, corp: Followed
) -> None:
    name = await person(domain)
    assert await corp.arrives(lambda: corp.active(name)) < SECONDS
    directory = corp.plane.services.directory
    assert directory.snapshot.principal_of(IDP, f"{name}@corp.test") == uid("User", name)
    await tool(domain, "user", "delete", name)
    assert await corp.arrives(lambda: not corp.active(name)) < SECONDS
    assert directory.snapshot.principal_of(IDP, f"{name}@corp.test") is None


async def test_a_disabled_account_is_out_and_an_enabled_one_in(domain: Server, corp: Followed) -> None:
    name = await person(domain)
    await corp.arrives(lambda: corp.active(name))
    await tool(domain, "user", "disable", name)
    assert await corp.arrives(lambda: not corp.active(name)) < SECONDS
    await tool(domain, "user", "enable", name)
    assert await corp.arrives(lambda: corp.active(name)) < SECONDS


async def test_an_account_that_ends_by_itself_is_out(domain: Server, corp: Followed) -> None:
    name = await person(domain)
    await corp.arrives(lambda: corp.active(name))
    # Days from now: none, so it ended just now.
    await tool(domain, "user", "setexpiry", name, "--days=0")
    assert await corp.arrives(lambda: not corp.active(name)) < 2 * SECONDS


async def test_a_nested_group_change_arrives_within_five_seconds(domain: Server, corp: Followed) -> None:
    name = await person(domain)
    await group(domain, "inner", name)
    await group(domain, "middle", "inner")
    await group(domain, "scientists")
    await corp.arrives(lambda: 'Group::"inner"' in corp.parents(name))
    assert 'Role::"data-scientist"' not in corp.parents(name)
    await tool(domain, "group", "addmembers", "scientists", "middle")
    assert await corp.arrives(lambda: 'Role::"data-scientist"' in corp.parents(name)) < SECONDS
    # A loop that the domain allows is cut here.
    await tool(domain, "group", "addmembers", "inner", "scientists")
    await corp.arrives(lambda: "lies in itself" in corp.follower.state.problem)
    assert 'Role::"data-scientist"' in corp.parents(name)
    await tool(domain, "group", "removemembers", "inner", "scientists")
    await tool(domain, "group", "removemembers", "scientists", "middle")
    assert await corp.arrives(lambda: 'Role::"data-scientist"' not in corp.parents(name)) < SECONDS


async def test_who_is_moved_out_of_the_base_is_out_and_comes_back_as_herself(
    domain: Server, corp: Followed
) -> None:
    name = await person(domain)
    await corp.arrives(lambda: corp.active(name))
    await tool(domain, "user", "move", name, "CN=Users")
    assert await corp.arrives(lambda: not corp.active(name)) < SECONDS
    await tool(domain, "user", "move", name, "OU=corp")
    assert await corp.arrives(lambda: corp.active(name)) < SECONDS


async def test_a_renamed_person_keeps_groups_and_entity(domain: Server, corp: Followed) -> None:
    name = await person(domain)
    await group(domain, f"g{name}", name)
    await corp.arrives(lambda: f'Group::"g{name}"' in corp.parents(name))
    await tool(domain, "user", "rename", name, "--force-new-cn", f"renamed {name}")
    await asyncio.sleep(2)
    await corp.arrives(lambda: corp.follower.state.problem == "")
    assert f'Group::"g{name}"' in corp.parents(name)
    assert corp.active(name)


def test_binds_without_a_right_password_are_refused(domain: Server) -> None:
    fields = {"url": domain.url, "ca": domain.ca}
    with pytest.raises(UnavailableError, match="invalid_credentials"):
        Connection(Endpoint(bind_dn=domain.bind_dn, password=Secret("wrong"), **fields))
    with Connection(Endpoint(bind_dn=domain.bind_dn, password=Secret(PASSWORD), **fields)) as connection:
        assert connection.read("", ("dsServiceName",)) is not None
