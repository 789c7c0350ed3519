"""The SDK keeps connections, and never takes an answer that is not its own for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from doorward.core.errors import InvalidConfigError
from doorward.core.identity import DeviceCertificate
from doorward.core.model import EntityUid
from doorward.identity import api_keys
from doorward.sdk import Client
from doorward.sdk import pool as pools
from support import console_plane
from support.console_plane import Plane
from support.policies import ORG, STARTER

OMAR, TRAINING = 'User::"omar"', 'Dataset::"store/training/a.csv"'
POLICIES = (
    (STARTER / "data.cedar").read_text()
    + """
@id("asks") permit(principal == Doorward::Service::"etl", action == Doorward::Action::"inspect",
  resource == Doorward::Control::"policies") when { context.device.proven };
@id("asks-plainly") permit(principal == Doorward::Service::"etl-test", action == Doorward::Action::"inspect",
  resource == Doorward::Control::"policies");
"""
)


class Stub:
    """A decision point that allows subjects with an even number, and counts its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.questions = 0
        self.close_after: Callable[[int], bool] = lambda _n: False
        self.answer: Callable[[bytes, bytes], bytes] = answered
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        buffer, served = b"", 0
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                buffer += data
                head, found, rest = buffer.partition(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
                length = int(fields.get(b"Content-Length", b"0"))
                if not found or len(rest) < length:
                    continue
                body, buffer = rest[:length], rest[length:]
                served += 1
                self.questions += 1
                connection.sendall(self.answer(body, fields[b"X-Request-ID"]))
                if self.close_after(served):
                    return


def answered(body: bytes, asked: bytes) -> bytes:
    name = json.loads(body)["subject"]["id"]
    return wire({"decision": name.isdecimal() and int(name) % 2 == 0}, asked)


def wire(document: Any, asked: bytes) -> bytes:
    content = json.dumps(document).encode()
    head = b"HTTP/1.1 200 OK\r\nX-Request-ID: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (asked, len(content)) + content


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


def is_even(client: Client, number: int) -> bool:
    return client.can(f'User::"{number}"', "read", TRAINING).allowed


def test_one_connection_serves_many_questions(stub: Stub) -> None:
    with Client(stub.url, timeout=20) as client:
        assert [is_even(client, n) for n in range(10)] == [True, False] * 5
    assert (stub.connections, stub.questions) == (1, 10)


async def test_one_connection_serves_many_questions_of_a_loop(stub: Stub) -> None:
    client = Client(stub.url, timeout=20)
    for number in range(10):
        answer = await client.acan(f'User::"{number}"', "read", TRAINING)
        assert answer.allowed is (number % 2 == 0)
    assert (stub.connections, stub.questions) == (1, 10)
    many = await asyncio.gather(*(client.acan(f'User::"{n}"', "read", TRAINING) for n in range(60)))
    assert [answer.allowed for answer in many] == [True, False] * 30
    await client.aclose()


def test_each_loop_has_its_own_connections(stub: Stub) -> None:
    client = Client(stub.url, timeout=20)
    for _ in range(3):
        assert asyncio.run(client.acan('User::"4"', "read", TRAINING)).allowed
    assert stub.connections == 3


def test_threads_share_and_never_mix_up_answers(stub: Stub) -> None:
    client = Client(stub.url, timeout=30)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: is_even(client, n), range(400)))
    assert found == [True, False] * 200
    assert stub.connections <= 8


def test_what_the_other_side_closed_is_opened_anew(stub: Stub) -> None:
    stub.close_after = lambda served: served == 2
    client = Client(stub.url, timeout=20)
    assert [is_even(client, n) for n in range(8)] == [True, False] * 4
    assert stub.questions == 8


async def test_what_the_other_side_closed_is_opened_anew_by_a_loop(stub: Stub) -> None:
    stub.close_after = lambda served: served == 2
    client = Client(stub.url, timeout=20)
    for number in range(8):
        assert (await client.acan(f'User::"{number}"', "read", TRAINING)).allowed is (number % 2 == 0)


def test_a_connection_that_dies_while_it_is_asked_is_replaced_once(stub: Stub) -> None:
    client = Client(stub.url, timeout=20)
    assert is_even(client, 2)

    def dies(_body: bytes, _asked: bytes) -> bytes:
        raise OSError

    stub.answer = dies
    answer = client.can('User::"2"', "read", TRAINING)
    assert not answer.allowed
    assert "cannot be reached" in answer.errors[0]
    assert (stub.connections, stub.questions) == (2, 3)


def test_an_idle_connection_grows_old(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.0)
    client = Client(stub.url, timeout=20)
    assert is_even(client, 2)
    assert is_even(client, 2)
    assert stub.connections == 2


UNASKED = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"decision": true}'


@pytest.mark.parametrize("slow", [False, True])
def test_an_answer_nobody_asked_for_is_never_taken(stub: Stub, slow: bool) -> None:  # noqa: FBT001 -- a case
    """A second answer behind the first, at once or later, must not become that of the next question."""
    client = Client(stub.url, timeout=20)

    def smuggled(body: bytes, asked: bytes) -> bytes:
        return answered(body, asked) + (b"" if slow else UNASKED)

    stub.answer = smuggled
    assert is_even(client, 2)
    if slow:
        kept = client._pool._idle._kept  # noqa: SLF001 -- the other side speaks out of turn
        ours, theirs = socket.socketpair()
        kept[:] = [(time.monotonic(), ours)]
        theirs.sendall(UNASKED)
    assert not is_even(client, 3)
    assert not asyncio.run(client.acan('User::"3"', "read", TRAINING)).allowed


def test_an_answer_to_another_question_is_a_denial(stub: Stub) -> None:
    stub.answer = lambda body, _asked: answered(body, b"of-another")
    client, question = Client(stub.url, timeout=20), ('User::"2"', "read", TRAINING)
    for answer in (client.can(*question), asyncio.run(client.acan(*question))):
        assert not answer.allowed
        assert "another question" in answer.errors[0]


async def test_a_slow_answer_is_a_denial_in_time_for_a_loop(stub: Stub) -> None:
    stub.answer = lambda body, asked: answered(body, asked)[:-1]
    began = time.monotonic()
    answer = await Client(stub.url, timeout=0.3).acan('User::"2"', "read", TRAINING)
    assert not answer.allowed
    assert "within 0.3 seconds" in answer.errors[0]
    assert time.monotonic() - began < 5


def test_many_are_asked_a_thousand_at_once(stub: Stub) -> None:
    def each(body: bytes, asked: bytes) -> bytes:
        items = json.loads(body)["evaluations"]
        return wire({"evaluations": [{"decision": i["resource"]["id"].endswith("0")} for i in items]}, asked)

    stub.answer = each
    client = Client(stub.url, timeout=30)
    names = [f'Dataset::"{n}"' for n in range(2500)]
    expected = [n % 10 == 0 for n in range(2500)]
    assert [one.allowed for one in client.can_each(OMAR, "read", names)] == expected
    assert [one.allowed for one in asyncio.run(client.acan_each(OMAR, "read", names))] == expected
    assert stub.questions == 6


_FORKING = """
import os, sys
from doorward.sdk import Client
client = Client(sys.argv[1], timeout=20)
ask = lambda n: client.can('User::"%d"' % n, "read", 'Dataset::"x"').allowed
assert ask(2)
child = os.fork()
found = [ask(n) for n in range(100 if child else 101, 300, 2 if child else 2)]
good = found == [bool(child)] * 100
if not child:
    os._exit(0 if good else 1)
assert good
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_fork_shares_no_connection(stub: Stub) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FORKING, stub.url], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert stub.connections == 2


# TLS: the installation's CA vouches for the control plane, a client certificate proves the machine


@pytest_asyncio.fixture
async def plane() -> AsyncIterator[Plane]:
    async with console_plane.running(policies=POLICIES, secure=True) as running:
        body = {"org": ORG, "source": "org.yaml", "prune": False, "plan": False}
        assert (await running.operator("POST", "/api/v1/apply", body))[0] == 200
        yield running


def key_of(plane: Plane, service: str, device: str | None = None) -> str:
    services = plane.services
    record, text = api_keys.create(
        subject=EntityUid.of("Service", service),
        key_id=services.ids.new(),
        now=services.clock.now(),
        device=None if device is None else EntityUid.of("Device", device),
    )
    services.directory.add_key(record)
    return text.reveal()


def certificate(plane: Plane, device: str, place: Path) -> Path:
    """Enrol a device; return its certificate and key in one file."""
    services = plane.services
    made = services.device_authority.enrol(device, now=services.clock.now())
    bound = DeviceCertificate(made.fingerprint, EntityUid.of("Device", device), made.expires)
    services.directory.bind_certificate(bound)
    file = place / f"{device}.pem"
    file.write_text(made.certificate + (made.key.reveal() if made.key else ""))
    return file


async def test_over_tls_with_the_installations_ca(plane: Plane, tmp_path: Path) -> None:
    key = key_of(plane, "etl-test")
    client = Client(plane.url, key=key, ca=plane.ca, timeout=20)
    for _ in range(3):
        assert (await client.acan(OMAR, "read", TRAINING)).allowed
        assert (await asyncio.to_thread(client.can, OMAR, "read", TRAINING)).allowed
    kept = client._pool._idle._kept  # noqa: SLF001 -- kept, and the same one
    assert len(kept) == 1
    await client.aclose()
    # No authority that we know: the key is not even sent.
    untrusted = Client(plane.url, key=key, timeout=20)
    for answer in (
        await asyncio.to_thread(untrusted.can, OMAR, "read", TRAINING),
        await untrusted.acan(OMAR, "read", TRAINING),
    ):
        assert not answer.allowed
        assert "SSLCertVerificationError" in answer.errors[0]
    with pytest.raises(InvalidConfigError):
        Client(plane.url, ca=tmp_path / "none.pem")
    with pytest.raises(InvalidConfigError):
        Client("http://localhost:1", ca=plane.ca)


async def test_a_client_certificate_proves_the_machine_that_asks(plane: Plane, tmp_path: Path) -> None:
    key, cert = key_of(plane, "etl"), certificate(plane, "laptop-7", tmp_path)

    async def ask(**more: Any) -> Any:
        client = Client(plane.url, ca=plane.ca, timeout=20, **{"key": key, **more})
        return await client.acan(OMAR, "read", TRAINING)

    assert (await ask(cert=cert)).allowed
    assert "403" in (await ask()).errors[0]
    # A key for another machine, a certificate nobody bound, and a certificate without a key.
    assert "401" in (await ask(cert=cert, key=key_of(plane, "etl", "desk-1"))).errors[0]
    assert (await ask(cert=cert, key=key_of(plane, "etl", "laptop-7"))).allowed
    assert "401" in (await ask(cert=cert, key=None)).errors[0]
    unbound = plane.services.device_authority.enrol("desk-1", now=plane.services.clock.now())
    stray = tmp_path / "stray.pem"
    stray.write_text(unbound.certificate + (unbound.key.reveal() if unbound.key else ""))
    assert "401" in (await ask(cert=stray)).errors[0]
