"""Get into the console as people do: by an operator's link, by enrolling a passkey, by signing in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.browser_client import BrowserClient
from support.soft_passkey import SoftPasskey

if TYPE_CHECKING:
    from support.console_plane import Plane


async def opened(plane: Plane) -> BrowserClient:
    """Open a session that may look, by an operator's link."""
    browser = BrowserClient(plane.port)
    token = (await plane.link("session")).partition("#")[2]
    assert (await browser.post("/open/redeem", {"token": token})).status == 204
    return browser


async def enrolled(plane: Plane) -> tuple[BrowserClient, SoftPasskey]:
    """Enrol the first admin."""
    browser = BrowserClient(plane.port)
    passkey = SoftPasskey("localhost", browser.origin)
    token = (await plane.link("enrol")).partition("#")[2]
    options = (await browser.post("/enrol/options", {"token": token})).json
    answer = await browser.post("/enrol/finish", {"token": token, "credential": passkey.create(options)})
    assert answer.status == 204, answer.text
    return browser, passkey


async def sign_in(browser: BrowserClient, passkey: SoftPasskey) -> int:
    options = (await browser.post("/sign-in/options")).json
    return (await browser.post("/sign-in/finish", {"credential": passkey.get(options)})).status
