"""A forwarded address is believed of a listed proxy, read from the right, and of nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.core.wire import Peer, Request
from doorward.gateway.proxies import Proxies

PROXIES = Proxies(("10.0.0.0/24", "2001:db8::1"))


def request(peer: str, *forwarded: str) -> Request:
    nothing: Any = None
    return Request(
        id="r", method="GET", path="/", raw_path="/", query=(), raw_query="",
        headers=tuple(("x-forwarded-for", value) for value in forwarded), peer=Peer(peer), body=nothing,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.5", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.5", ("10.1.1.1, 203.0.113.9",), "203.0.113.9"),  # the left one anybody can write
        ("10.0.0.5", ("127.0.0.1, 203.0.113.9, 10.0.0.6",), "203.0.113.9"),
        ("10.0.0.5", ("127.0.0.1", "203.0.113.9"), "203.0.113.9"),
        ("10.0.0.5", (), "10.0.0.5"),
        ("10.0.0.5", ("10.0.0.7",), "10.0.0.5"),
        ("10.0.0.5", ("::ffff:203.0.113.9",), "203.0.113.9"),
        ("2001:db8::1", ("2001:db8::2",), "2001:db8::2"),
        ("10.0.1.5", ("10.0.0.1",), "10.0.1.5"),
        ("203.0.113.9", ("10.0.0.1",), "203.0.113.9"),
    ],
)
def test_whose_request_it_is(peer: str, forwarded: tuple[str, ...], expected: str) -> None:
    assert PROXIES.seen(request(peer, *forwarded)).peer.ip == expected


def test_the_proxy_is_kept_for_the_record() -> None:
    assert PROXIES.seen(request("10.0.0.5", "203.0.113.9")).peer.proxy == "10.0.0.5"
    assert PROXIES.seen(request("203.0.113.1", "203.0.113.9")).peer.proxy == ""


@pytest.mark.parametrize(
    "text",
    ["unknown", "", "203.0.113.9:443", "fe80::1%eth0", "1.2.3", "a" * 5000, ",".join(["1.1.1.1"] * 33)],
)
def test_what_is_no_address_is_refused_of_a_proxy(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        PROXIES.seen(request("10.0.0.5", text))
    assert PROXIES.seen(request("10.9.9.9", text)).peer.ip == "10.9.9.9"


def test_without_a_list_nobody_is_believed() -> None:
    assert Proxies(()).seen(request("127.0.0.1", "10.0.0.1")).peer.ip == "127.0.0.1"
