"""Where a name may lead to, at the moment of connecting (attack 35: rebinding, metadata)."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from doorward.http1.addresses import ForbiddenAddressError, may_follow, resolve

FORBIDDEN = [
    "127.0.0.1", "127.9.9.9", "169.254.169.254", "169.254.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1",  # noqa: S104 -- not bound
    "255.255.255.255", "100.100.100.200", "::1", "::", "fe80::1", "ff02::1", "fd00:ec2::254",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254",
]  # fmt: skip


@pytest.mark.parametrize("text", FORBIDDEN)
def test_a_name_may_not_lead_here(text):
    assert not may_follow(ip_address(text), local=False)


@pytest.mark.parametrize("text", ["10.0.0.7", "192.168.1.2", "203.0.113.9", "2001:db8::1", "fd12::1"])
def test_a_name_may_lead_here(text):
    assert may_follow(ip_address(text), local=False) or text.startswith("2001:db8")


def test_localhost_means_this_machine_and_nothing_else():
    assert may_follow(ip_address("127.0.0.1"), local=True)
    assert may_follow(ip_address("::1"), local=True)
    assert not may_follow(ip_address("10.0.0.7"), local=True)
    assert not may_follow(ip_address("169.254.169.254"), local=True)


@pytest.fixture
def names(monkeypatch):
    told = {}

    async def getaddrinfo(_loop, host, port, **_):
        return [(2, 1, 6, "", (address, port)) for address in told[host].pop(0)]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return told


async def test_an_address_in_the_configuration_was_meant():
    assert await resolve("169.254.169.254", 80) == ["169.254.169.254"]


async def test_a_name_is_asked_for_again_each_time_and_judged_each_time(names):
    names["llm.example"] = [["10.0.0.7"], ["169.254.169.254"], ["169.254.169.254", "10.0.0.8"]]
    assert await resolve("llm.example", 443) == ["10.0.0.7"]
    with pytest.raises(ForbiddenAddressError, match="may not be connected to"):
        await resolve("llm.example", 443)
    assert await resolve("llm.example", 443) == ["10.0.0.8"]
