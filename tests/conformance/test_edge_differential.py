"""Ambiguous requests through the edge, nginx, aiohttp and Node: none is forwarded (attacks 22-31)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import h11
from aiohttp import web

from doorward.core.clock import SystemClock
from doorward.core.ids import IdSource
from doorward.gateway.edge import Edge
from doorward.settings import GatewaySettings
from support.ambiguous import AMBIGUOUS, PLAIN
from support.fuzz_edge import Keeper, Reading

MARKER = b"GET /llm/marker HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"
NODE = """
const http = require('http');
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    console.log(JSON.stringify([request.socket.remotePort, request.method, request.url,
                                Buffer.concat(parts).toString('latin1')]));
    response.end('ok');
  });
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify(server.address().port)));
"""
Readings = dict[int, list[Reading]]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def talk(port: int, data: bytes) -> int:
    """Send raw bytes, wait until the answers are over, and return the port they were sent from."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    own = int(writer.get_extra_info("sockname")[1])
    writer.write(data)
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(1.5):
            await reader.read()
    writer.close()
    return own


async def readings(port: int, told: Readings) -> dict[str, list[Reading]]:
    """Return what one server read in each case, the marker left out."""
    gate = asyncio.Semaphore(25)

    async def one(data: bytes) -> int:
        async with gate:
            return await talk(port, data + MARKER)

    cases = {**PLAIN, **AMBIGUOUS}
    ports = dict(zip(cases, await asyncio.gather(*map(one, cases.values())), strict=True))
    await asyncio.sleep(0.2)
    return {name: [r for r in told[own] if r[1] != "/llm/marker"] for name, own in ports.items()}


@contextlib.asynccontextmanager
async def aiohttp_server() -> AsyncIterator[tuple[int, Readings]]:
    told: Readings = defaultdict(list)

    async def serve(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        assert request.transport is not None
        told[request.transport.get_extra_info("peername")[1]].append((request.method, request.raw_path, body))
        return web.Response(text="ok")

    server = await asyncio.get_running_loop().create_server(web.Server(serve), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], told
    finally:
        server.close()


@contextlib.asynccontextmanager
async def node_server() -> AsyncIterator[tuple[int, Readings]]:
    told: Readings = defaultdict(list)
    process = await asyncio.create_subprocess_exec("node", "-e", NODE, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    port = json.loads(await process.stdout.readline())

    async def follow(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            own, method, url, body = json.loads(line)
            told[own].append((method, url, body.encode("latin-1")))

    following = asyncio.create_task(follow(process.stdout))
    try:
        yield port, told
    finally:
        process.kill()
        await process.wait()
        following.cancel()


@contextlib.asynccontextmanager
async def nginx_server() -> AsyncIterator[tuple[int, Readings]]:
    """Run nginx as a proxy: what it read is what it sends on."""
    told: Readings = defaultdict(list)

    async def behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read = h11.Connection(h11.SERVER)
        with contextlib.suppress(h11.RemoteProtocolError, OSError):
            while True:
                event = read.next_event()
                if event is h11.NEED_DATA:
                    read.receive_data(await reader.read(65536))
                elif type(event) is h11.Request:
                    head, body = event, b""
                elif type(event) is h11.Data:
                    body += bytes(event.data)
                else:
                    break
            own = int(dict(head.headers)[b"x-port"])
            told[own].append((head.method.decode(), head.target.decode("latin-1"), body))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    backend = await asyncio.start_server(behind, "127.0.0.1", 0)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log /dev/null;\n"
            "events { worker_connections 512; }\n"
            f"http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;"
            f" fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n"
            f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_http_version 1.1;"
            " proxy_set_header X-Port $remote_port;"
            f" proxy_pass http://127.0.0.1:{backend.sockets[0].getsockname()[1]}; }} }} }}"
        )
        process = await asyncio.create_subprocess_exec(
            "nginx", "-c", str(config), "-p", folder, "-e", "/dev/null"
        )
        try:
            for _ in range(200):
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
            yield port, told
        finally:
            process.terminate()
            await process.wait()
            backend.close()


async def our_readings() -> dict[str, list[Reading]]:
    found = {}
    for name, data in {**PLAIN, **AMBIGUOUS}.items():
        keeper = Keeper()
        settings = GatewaySettings(listen="127.0.0.1:0")
        edge = Edge(keeper, settings=settings, ids=IdSource(SystemClock()), opaque={"store": 2})
        await edge.start()
        await talk(edge.port, data + MARKER)
        await edge.drain(0)
        await edge.close()
        found[name] = [reading for reading in keeper.seen if reading[1] != "/llm/marker"]
    return found


SERVERS = {"aiohttp": aiohttp_server, "node": node_server, "nginx": nginx_server}


async def test_nothing_is_forwarded_that_two_servers_read_differently() -> None:
    assert len(AMBIGUOUS) >= 82
    ours = await our_readings()
    theirs = {}
    for name, server in SERVERS.items():
        if name == "aiohttp" or shutil.which(name) is not None:
            async with server() as (port, told):
                theirs[name] = await readings(port, told)
    for case in AMBIGUOUS:
        assert ours[case] == [], case
    for case in PLAIN:
        assert ours[case], case
        for name, read in theirs.items():
            # After an end of the connection was agreed, the marker itself may be taken for an offence.
            assert read[case] in ([ours[case], []] if case in {"close", "old"} else [ours[case]]), (
                case,
                name,
            )
    split = [case for case in AMBIGUOUS if len({repr(read[case]) for read in theirs.values()}) > 1]
    taken = {name: sum(bool(read[case]) for case in AMBIGUOUS) for name, read in theirs.items()}
    # The figures of this run, for whoever wants to see them (-s).
    said = (
        f"{len(AMBIGUOUS)} ambiguous requests: the edge takes 0, others {taken}; they differ on {len(split)}"
    )
    sys.stdout.write(f"\n{said}\n")
