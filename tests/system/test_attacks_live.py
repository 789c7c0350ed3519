"""Attacks written byte by byte against a whole installation that was started under `umask 000`."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.attacker import LLM_SECRET, Attacker, attacked, status
from support.installation import wait_until
from support.s3_door import UPSTREAM_SECRET

CHAT = "/llm/v1/chat/completions"
MESSAGES = b'"messages":[{"role":"user","content":"canary-prompt"}]'


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    before = os.umask(0)
    try:
        with attacked(tmp_path_factory.mktemp("live")) as running:
            yield running
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Authorization: Bearer {key}", "Authorization: Bearer {key}"], 400),
        (["Authorization: Bearer {key}, Bearer {key}"], 400),
        (["Authorization: Bearer  {key}"], 401),
        (["Authorization: Bearer\r\n {key}"], 400),
        (["Authorization: Basic YTpi", "x-api-key: {key}"], 401),
        (["Authoriza_tion: Bearer {key}"], 401),
        (["Cookie: authorization={key}"], 401),
        (["Proxy-Authorization: Bearer {key}"], 401),
        (["Authorization: Bearer ' OR 1=1--"], 401),
        (["Authorization: Bearer {key}", "Connection: close, x-api-key"], 400),
        (["Authorization: Bearer {key}", "X-HTTP-Method-Override: DELETE"], 400),
        (["Authorization: Bearer {key}", "Upgrade: h2c"], 400),
        (["Authorization: Bearer {key}", "Transfer-Encoding: xchunked"], 400),
        (["Authorization: Bearer {key}"], 200),
    ],
)
def test_one_credential_in_one_reading(attacker: Attacker, lines: list[str], expected: int) -> None:
    key = attacker.keys["dana"]["key"]
    answer = attacker.ask("GET /llm/v1/models", headers=[line.format(key=key) for line in lines])
    assert status(answer) == expected
    assert key.encode() not in answer


@pytest.mark.parametrize(
    "path",
    ["/%6clm/v1/models", "/llm/../llm/v1/models", "/llm/%2e%2e/llm/v1/models", "/llm//v1/models",
     "/llm/v1/models;x=1", "/llm/v1/models%2f", "/llm/v1/models#x", "/llm/v1/models?_method=DELETE",
     "http://evil/llm/v1/models", "@evil/llm", "/store/training/a/../secret/board.csv",
     "/store/training/%73ecret/board.csv", "/store/training%2fsecret/board.csv",
     "/store/training/a%2f..%2fsecret%2fboard.csv"],
)  # fmt: skip
def test_a_path_in_disguise_is_refused(attacker: Attacker, path: str) -> None:
    answer = attacker.ask(f"GET {path}", "eli")
    assert status(answer) == 400
    assert b"canary" not in answer


@pytest.mark.parametrize(
    "body",
    [b'{"model":"m","model":"secret",%b}', b'{"model":"m","mo\\u0064el":"secret",%b}',
     b'{"model":"m","Model":"secret",%b}', b'{"model":"m","fallbacks":["secret"],%b}',
     b'\xef\xbb\xbf{"model":"m",%b}', b'{"model":"m","tools":[{"type":"mcp","server_url":"http://x"}],%b}'],
)  # fmt: skip
def test_a_body_with_a_second_model_never_reaches_the_upstream(attacker: Attacker, body: bytes) -> None:
    before = len(attacker.llm.models)
    assert status(attacker.ask(f"POST {CHAT}", "dana", body % MESSAGES)) == 400
    assert len(attacker.llm.models) == before


CSV = b"id,email\n1,canary@x.y\n"
LIES = {
    "a.csv": (CSV, "json"),
    "b.json": (CSV, "csv"),
    "c.parquet": (CSV, "csv"),
    "d.csv": (gzip.compress(CSV), "csv"),
    "e.csv": (CSV.decode().encode("utf-16"), "csv"),
    "f.csv": (b"\xef\xbb\xbf" + CSV, "csv"),
    "g.csv": (b"email,email\ncanary,canary\n", "csv"),
    "h.csv": (b'"email","x"\r\n"can""ary\ncanary",1\r\n', "csv"),
    "i.csv": (CSV.replace(b"\n", b"\r"), "csv"),
    "j.jsonl": (
        b'{"em\\u0061il":"canary"}\n{"EMAIL":"canary","a":{"email":["canary"]}}\n',
        "application/x-ndjson",
    ),
    "k.json": (b'[["email"],["canary"]]', "json"),
    "l.csv": (b"sep=;\nid;email\n1;canary\n", "csv"),
    "m.csv": (b'id,email\n1,"canary\n', "csv"),
    "n.csv": (b"id,e\xc2\xadmail\n1,canary\n", "csv"),
    "o.csv": (b"id,email\n1,canary,canary\n", "csv"),
}


@pytest.mark.parametrize("name", LIES)
def test_no_lie_about_an_object_shows_what_is_masked(attacker: Attacker, name: str) -> None:
    content, kind = LIES[name]
    written = attacker.ask(f"PUT /store/training/lie_{name}", "eli", content, kind=kind)
    assert status(written) == 200
    for headers in ([], ["Range: bytes=3-"], ["Range: bytes=0-1,5-60"], ["If-Range: x", "Range: bytes=9-"]):
        shown = attacker.ask(f"GET /store/training/lie_{name}", "dana", headers=headers)
        assert status(shown) in {200, 206, 403}
        assert b"anary" not in shown


def test_a_large_body_sent_in_one_piece_is_answered(attacker: Attacker) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"a" * 500_000)
    assert status(attacker.ask(f"POST {CHAT}", "dana", body)) == 200


def test_one_callers_heavy_bodies_do_not_stall_the_others(attacker: Attacker) -> None:
    heavy = b'{"model":"m","messages":[' + b"[]," * 2_600_000 + b"[]]}"
    done = threading.Event()

    def attack() -> list[int]:
        try:
            tags = b"<Delete>" + b"<a/>" * 1_000_000 + b"</Delete>"
            first = attacker.ask(f"POST {CHAT}", "dana", heavy)
            return [
                status(first),
                status(attacker.ask("POST /store/training?delete", "eli", tags, kind="xml")),
            ]
        finally:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        attacking = pool.submit(attack)
        while not done.is_set():
            # The gateway's answer within two seconds on a busy machine; it was eight and more.
            assert status(attacker.ask("GET /llm/v1/models", "vic", seconds=2)) == 200
    assert attacking.result() == [413, 400]


def test_callers_that_leave_at_once_leave_no_unrecorded_request(attacker: Attacker) -> None:
    key = attacker.keys["vic"]["key"]
    request = b'{"model":"m",%b}' % MESSAGES
    head = f"POST {CHAT} HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(request)}\r\n\r\n"
    before = len(attacker.llm.models)
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", attacker.installation.gateway_port)) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.sendall(head.encode() + request)

    def settled() -> bool:
        records = attacker.installation.records()
        allowed = {
            r["request_id"] for r in records if r.get("decision") == "allow" and "vic" in r["principal"]
        }
        over = {r["request_id"] for r in records if r["kind"] == "outcome"}
        return len(allowed) >= len(attacker.llm.models) - before and allowed <= over

    wait_until(settled, what="every allowed request has its decision and its outcome")


def test_a_limit_is_not_raced_past(attacker: Attacker) -> None:
    def export(number: int) -> int:
        headers = ["Range: bytes=0-1"] if number % 2 else []
        return status(attacker.ask("GET /store/models/w.bin", "vic", headers=headers))

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(export, range(20)))
    assert sum(answer in {200, 206} for answer in answers) == 5
    assert answers.count(429) == 15


def test_nothing_is_open_to_other_accounts_and_no_secret_is_written(attacker: Attacker) -> None:
    data, folder = attacker.installation.data, attacker.installation.folder
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    files = [path for path in data.rglob("*") if not path.is_symlink()]
    assert [str(p) for p in files if stat.S_IMODE(p.stat().st_mode) & 0o077] == []
    secrets = [LLM_SECRET, UPSTREAM_SECRET, "canary-prompt", "canary-mail", "canary-board"]
    secrets += [made[name] for made in attacker.keys.values() for name in ("key", "secret_access_key")]
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    roles = (attacker.installation.pid(role) for role in ("gateway", "control"))
    written += b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in roles)
    assert [secret for secret in secrets if secret.encode() in written] == []
