"""An HTTP client that sends what a browser sends, and can be told to send something else."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.cookies import SimpleCookie
from typing import Any

ABSENT = ""
_THREADS = ThreadPoolExecutor(64)


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class BrowserClient:
    port: int
    host: str = "localhost"
    cookies: dict[str, str] = field(default_factory=dict)
    trust: ssl.SSLContext | None = None

    @property
    def origin(self) -> str:
        return f"{'https' if self.trust else 'http'}://{self.host}:{self.port}"

    def _connection(self) -> http.client.HTTPConnection:
        if self.trust is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return http.client.HTTPSConnection("localhost", self.port, timeout=10, context=self.trust)

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.send("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        return await self.send("POST", path, json.dumps(body or {}), **headers)

    async def send(self, method: str, path: str, body: str | None = None, **headers: str) -> Reply:
        """Send; a keyword names a header (`sec_fetch_site`), ABSENT leaves it out."""
        # Threads of its own: the server under test runs in this loop and needs the loop's.
        work = partial(self._send, method, path, body, headers)
        return await asyncio.get_running_loop().run_in_executor(_THREADS, work)

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Reply:
        sent = {"host": f"{self.host}:{self.port}", "sec-fetch-site": "same-origin", "accept": "*/*"}
        if method not in {"GET", "HEAD"}:
            sent |= {"origin": self.origin, "content-type": "application/json"}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self._connection()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value != ABSENT:
                    connection.putheader(name, value)
            connection.putheader("content-length", str(len((body or "").encode())))
            connection.endheaders((body or "").encode())
            answer = connection.getresponse()
            reply = Reply(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()
        self._keep(reply)
        return reply

    def _keep(self, reply: Reply) -> None:
        for name, value in reply.headers:
            if name.lower() == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    self.cookies[key] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[key]
