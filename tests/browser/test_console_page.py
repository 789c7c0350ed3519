"""A person at the console: enrol by link, sign in, watch, ask why, sign out; by mouse and by keyboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.async_api import expect

SHOTS = os.environ.get("DOORWARD_SHOTS")
MASK = {"type": "mask", "fields": ["email", "phone", "card"]}


async def shot(tab: Any, name: str) -> None:
    if SHOTS:
        await tab.page.screenshot(path=Path(SHOTS) / f"{name}.png")


async def enrol(tab: Any) -> None:
    await tab.authenticator()
    await tab.page.goto(await tab.plane.link("enrol"))
    await shot(tab, "enrol")
    await tab.page.get_by_role("button", name="Create a passkey").click()
    await expect(tab.page.get_by_role("heading", name="Decisions")).to_be_visible()


async def open_by_link(tab: Any, path: str = "/") -> None:
    await tab.page.goto(await tab.plane.link("session"))
    await tab.page.get_by_role("button", name="Open the console").click()
    await expect(tab.page.get_by_role("heading", name="Decisions")).to_be_visible()
    if path != "/":
        await tab.page.goto(tab.plane.url + path)


async def is_live(tab: Any) -> None:
    await expect(tab.page.locator("#live")).to_have_attribute("data-state", "on")


async def test_the_first_admin_enrols_watches_asks_why_and_signs_out(tab: Any) -> None:
    page, plane = tab.page, tab.plane
    await enrol(tab)
    assert "#" not in page.url
    await expect(page.get_by_text("No request has come to the door yet.")).to_be_visible()
    await is_live(tab)
    await plane.decide("01REQUESTONE", obligations=(MASK,), context={"device": {"proven": True}})
    row = page.get_by_role("row").filter(has_text="dana")
    await expect(row).to_contain_text("Allowed")
    await plane.decide(
        "01REQUESTTWO",
        decision="deny",
        code="denied",
        determining=(),
        detail="Reading training data needs a proven device.",
        would_allow=({"change": "context.device.proven", "say": "Use your managed laptop."},),
    )
    denied = page.get_by_role("row").filter(has_text="Denied")
    await expect(denied).to_be_visible()
    await denied.get_by_role("link").click()
    why = page.get_by_role("complementary", name="Why")
    await expect(why).to_contain_text("Use your managed laptop.")
    await shot(tab, "why")
    await page.keyboard.press("Escape")
    await expect(why).to_be_hidden()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in to Doorward")).to_be_visible()
    await shot(tab, "sign-in")
    await page.goto(plane.url)
    await expect(page.get_by_role("heading", name="Sign in to Doorward")).to_be_visible()
    await page.get_by_role("button", name="Sign in with a passkey").click()
    await expect(page.get_by_text("Allowed", exact=True).last).to_be_visible()
    assert tab.complaints == []
