"""A person before her browser, and a program that waits for her answer."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from support.browser_client import BrowserClient, Reply
from support.oauth_plane import OAuth, Said

CALLBACK = "http://127.0.0.1:5005/callback"
_TICKET = re.compile(r'name="ticket" value="([^"]+)"')
_FORM = "application/x-www-form-urlencoded"


@dataclass
class Program:
    """A native client: what it asks, and what it keeps to itself."""

    oauth: OAuth
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def address(self, **changes: Any) -> str:
        asked = {
            "response_type": "code", "client_id": "doorward-cli", "redirect_uri": CALLBACK,
            "state": self.state, "code_challenge": self.challenge, "code_challenge_method": "S256", **changes,
        }  # fmt: skip
        kept = {name: value for name, value in asked.items() if value is not ...}
        return f"/oauth/authorize?{urlencode(kept, doseq=True)}"

    async def redeem(self, code: str, **changes: Any) -> Said:
        fields = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK,
            "client_id": "doorward-cli", "code_verifier": self.verifier, **changes,
        }  # fmt: skip
        return await self.oauth.token(**{name: value for name, value in fields.items() if value is not ...})

    async def refresh(self, token: str, **more: Any) -> Said:
        fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "doorward-cli", **more}
        return await self.oauth.token(**fields)


async def sends(browser: BrowserClient, path: str, **fields: str) -> Reply:
    return await browser.send("POST", path, urlencode(fields), content_type=_FORM, accept="text/html")


def ticket_in(page: Reply) -> str:
    found = _TICKET.search(page.text)
    assert found, (page.status, page.text[:2000])
    return found[1]


async def answers(browser: BrowserClient, address: str, answer: str = "allow") -> Reply:
    """Open the page a program sent the browser to, and answer it."""
    page = await browser.get(address, accept="text/html")
    assert page.status == 200, (page.status, page.headers, page.text[:500])
    return await sends(browser, "/oauth/authorize", ticket=ticket_in(page), answer=answer)


def told(reply: Reply) -> dict[str, str]:
    """Return what went back to the program."""
    assert reply.status == 303, (reply.status, reply.text[:500])
    where = urlsplit(reply.header("location"))
    assert f"{where.scheme}://{where.netloc}{where.path}" == CALLBACK, where
    return {name: values[0] for name, values in parse_qs(where.query).items()}


async def code_of(program: Program, browser: BrowserClient, **changes: Any) -> str:
    return told(await answers(browser, program.address(**changes)))["code"]
