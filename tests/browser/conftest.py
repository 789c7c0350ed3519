"""Headless Chromium with a virtual authenticator, against a real control plane."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from playwright.async_api import BrowserContext, CDPSession, Page, async_playwright

from support.console_plane import Plane, running

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Tab:
    """One page, and what went wrong on it."""

    page: Page
    context: BrowserContext
    cdp: CDPSession
    plane: Plane
    complaints: list[str] = field(default_factory=list)

    async def authenticator(self) -> str:
        await self.cdp.send("WebAuthn.enable")
        made = await self.cdp.send(
            "WebAuthn.addVirtualAuthenticator",
            {
                "options": {
                    "protocol": "ctap2",
                    "transport": "internal",
                    "hasResidentKey": True,
                    "hasUserVerification": True,
                    "isUserVerified": True,
                    "automaticPresenceSimulation": True,
                }
            },
        )
        return str(made["authenticatorId"])


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running(issues=True) as plane:
        yield plane


@pytest.fixture
async def tab(plane: Plane) -> AsyncIterator[Tab]:
    if CHROMIUM is None:
        pytest.fail("Chromium is needed: `make setup-system` installs it")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        context = await browser.new_context(viewport={"width": 1360, "height": 860})
        page = await context.new_page()
        tab = Tab(page, context, await context.new_cdp_session(page), plane)
        page.on("console", lambda said: tab.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        await page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " (event) => console.error('csp', event.violatedDirective, event.blockedURI))"
        )
        yield tab
        await browser.close()
