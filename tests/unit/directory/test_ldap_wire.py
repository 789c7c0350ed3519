"""The LDAP client against servers that lie: bounded, in turn, and a partial answer is no answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sansldap import (
    LDAPFilter,
    LDAPResultCode,
    LDAPServer,
    PagedResultControl,
    PartialAttribute,
    SearchRequest,
)

from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.secret import Secret
from doorward.directory.ldap.wire import MOST_BYTES, Connection, Endpoint

ANY = LDAPFilter.from_string("(objectClass=*)")
Answering = Callable[[LDAPServer, SearchRequest], None]


class Liar:
    """A server on a socket pair: binds anybody, then answers searches as told."""

    def __init__(self, end: socket.socket, answering: Answering, *, bind: LDAPResultCode) -> None:
        self._end, self._answering, self._bind = end, answering, bind
        self.seen: list[object] = []

    def run(self) -> None:
        session = LDAPServer()
        try:
            while data := self._end.recv(65536):
                for message in session.receive(data):
                    self.seen.append(message)
                    if isinstance(message, SearchRequest):
                        self._answering(session, message)
                    else:
                        session.bind_response(message.message_id, result_code=self._bind)
                    self._end.sendall(session.data_to_send())
        except (OSError, _Raw) as raw:
            if isinstance(raw, _Raw):
                self._end.sendall(session.data_to_send() + raw.data)
        finally:
            self._end.close()


class _Raw(Exception):  # noqa: N818 -- a way out, no fault
    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data


@contextmanager
def connected(
    monkeypatch: pytest.MonkeyPatch, answering: Answering, *, bind: LDAPResultCode = LDAPResultCode.SUCCESS
) -> Iterator[tuple[Endpoint, Liar]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    monkeypatch.setattr(Connection, "_connected", lambda _self: ours)
    liar = Liar(theirs, answering, bind=bind)
    thread = threading.Thread(target=liar.run, daemon=True)
    thread.start()
    yield Endpoint(url="ldap://x", bind_dn="cn=r", password=Secret("pw")), liar
    ours.close()
    thread.join(5)


def entry(session: LDAPServer, number: int, name: str) -> None:
    session.search_result_entry(number, f"uid={name}", [PartialAttribute("uid", [name.encode()])])


def done(session: LDAPServer, number: int, code: LDAPResultCode, cookie: bytes | None = b"") -> None:
    controls = [] if cookie is None else [PagedResultControl(critical=False, size=0, cookie=cookie)]
    session.search_result_done(number, code, controls=controls)


def search(endpoint: Endpoint) -> list[str]:
    with Connection(endpoint) as connection:
        return [one.text("uid") for one in connection.search("dc=x", ANY, ("uid",))]


def test_pages_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def pages(session: LDAPServer, asked: SearchRequest) -> None:
        (paged,) = [c for c in asked.controls if isinstance(c, PagedResultControl)]
        entry(session, asked.message_id, f"p{paged.cookie.decode()}")
        following = {b"": b"1", b"1": b"2", b"2": b""}[paged.cookie]
        done(session, asked.message_id, LDAPResultCode.SUCCESS, following)

    with connected(monkeypatch, pages) as (endpoint, _liar):
        assert search(endpoint) == ["p", "p1", "p2"]


@pytest.mark.parametrize(
    "code",
    [LDAPResultCode.SIZE_LIMIT_EXCEEDED, LDAPResultCode.TIME_LIMIT_EXCEEDED, LDAPResultCode.REFERRAL,
     LDAPResultCode.BUSY, LDAPResultCode.INSUFFICIENT_ACCESS_RIGHTS, LDAPResultCode.OTHER],
)  # fmt: skip
def test_part_of_an_answer_is_none(monkeypatch: pytest.MonkeyPatch, code: LDAPResultCode) -> None:
    def part(session: LDAPServer, asked: SearchRequest) -> None:
        entry(session, asked.message_id, "one")
        done(session, asked.message_id, code)

    with connected(monkeypatch, part) as (endpoint, liar):
        with pytest.raises(UnavailableError):
            search(endpoint)
        assert any(isinstance(one, SearchRequest) for one in liar.seen)


def test_an_answer_that_breaks_off_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(session: LDAPServer, asked: SearchRequest) -> None:
        entry(session, asked.message_id, "one")
        raise _Raw(b"\x30\x84")

    with connected(monkeypatch, cut) as (endpoint, _liar), pytest.raises(UnavailableError, match="broke off"):
        search(endpoint)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x30\x84" + (MOST_BYTES + 1).to_bytes(4),
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x80\x00\x00",
        b"\x30\x88" + b"\xff" * 8,
        b"\x30\x03\x02\x01",
        b"\x00" * 64,
        b"\x30\x0c\x02\x01\x63\x65\x07\x0a\x01\x00\x04\x00\x04\x00",
        b"\x30\x05\x02\x01\x02\x79\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=[
        "over the bound",
        "4 GiB",
        "no length",
        "long length",
        "short",
        "zeros",
        "out of turn",
        "unknown",
        "http",
    ],
)
def test_garbage_ends_the_connection_and_fills_no_memory(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    def lies(_session: LDAPServer, _asked: SearchRequest) -> None:
        raise _Raw(raw)

    with connected(monkeypatch, lies) as (endpoint, liar):
        with pytest.raises(UnavailableError):
            search(endpoint)
        assert any(isinstance(one, SearchRequest) for one in liar.seen)


def test_a_message_over_the_bound_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def lies(_session: LDAPServer, _asked: SearchRequest) -> None:
        raise _Raw(b"\x30\x84" + (MOST_BYTES + 1).to_bytes(4) + b"\x00" * 1000)

    with connected(monkeypatch, lies) as (endpoint, _liar), pytest.raises(UnavailableError, match="over the"):
        search(endpoint)


def test_an_empty_password_is_not_even_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(monkeypatch, lambda _s, _m: None) as (endpoint, liar):
        for password in (Secret(""), None):
            with pytest.raises(InvalidConfigError, match="no password"):
                Connection(Endpoint(url=endpoint.url, bind_dn="cn=r", password=password))
        assert liar.seen == []


def test_a_refused_bind_is_told_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = LDAPResultCode.INVALID_CREDENTIALS
    with connected(monkeypatch, lambda _s, _m: None, bind=refusing) as (endpoint, _liar):
        with pytest.raises(UnavailableError) as refused:
            Connection(endpoint)
        assert "invalid_credentials" in str(refused.value)
        assert "pw" not in str(refused.value) + repr(endpoint)
