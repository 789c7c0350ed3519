"""Enrol an authenticator app and sign in with it, in a real browser."""

from __future__ import annotations

import time
from typing import Any

import pyotp
from playwright.async_api import expect


async def test_a_user_enrols_an_app_keeps_her_codes_and_signs_in_with_it(tab: Any) -> None:
    plane, page = tab.plane, tab.page
    await plane.operator("POST", "/api/v1/apply", {"org": "users:\n  dana: { roles: [admin] }\n"})
    _, link = await plane.operator("POST", "/api/v1/enrol-links", {"user": "dana"})
    await page.goto(link["url"])
    await page.get_by_text("Use an authenticator app").click()
    await expect(page.locator("#picture svg")).to_be_visible()
    secret = await page.locator("#secret").inner_text()
    await page.get_by_label("The code it shows").fill(pyotp.TOTP(secret).at(int(time.time()) - 30))
    await page.get_by_role("button", name="Enrol the app").click()
    await expect(page.locator("#codes")).to_be_visible()
    codes = (await page.locator("#codes pre").inner_text()).split()
    assert len(codes) == 10
    await page.get_by_role("link", name="I kept them").click()
    await expect(page.get_by_text('User::"dana"').first).to_be_visible()
    _, key = await plane.operator("POST", "/api/v1/keys", {"user": "dana"})
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_text("Use an authenticator app").click()
    await page.get_by_label("An API key of your own").fill(key["key"])
    await page.get_by_label("Code, or a recovery code").fill("000000")
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("not accepted")
    await page.get_by_label("Code, or a recovery code").fill(codes[0])
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_text('User::"dana"').first).to_be_visible()
