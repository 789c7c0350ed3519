"""A person at the console: enrol by link, sign in, watch, ask why, sign out; by mouse and by keyboard."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
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


async def test_everything_works_from_the_keyboard(tab: Any) -> None:
    page, plane = tab.page, tab.plane
    for number in range(3):
        await plane.decide(f"01R{number}", principal=f'User::"person-{number}"')
    await open_by_link(tab)
    await is_live(tab)
    await page.keyboard.press("j")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("k")
    await page.keyboard.press("Enter")
    why = page.get_by_role("complementary", name="Why")
    await expect(why.get_by_role("heading", level=2)).to_be_focused()
    await expect(why).to_contain_text("person-2")
    await page.keyboard.press("Escape")
    await expect(why).to_be_hidden()
    await expect(page.get_by_role("link", name="Why was person-2 allowed")).to_be_focused()
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox")).to_be_focused()
    assert tab.complaints == []


async def test_filters_hold_for_what_is_there_and_for_what_comes(tab: Any) -> None:
    page, plane = tab.page, tab.plane
    await plane.decide("01R0", principal='User::"dana"')
    await plane.decide("01R1", principal='User::"omar"', decision="deny", code="denied", determining=())
    await open_by_link(tab)
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(2)
    await page.get_by_role("radio", name="Denied").check()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("omar")
    assert page.url.endswith("?decision=deny&principal=&upstream=")
    await plane.decide("01R2", principal='User::"bea"')
    await plane.decide("01R3", principal='User::"eli"', decision="deny", code="denied", determining=())
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("eli")
    await page.get_by_role("searchbox").fill("om")
    await expect(rows).to_have_count(1)
    await page.reload()
    await expect(rows).to_have_count(1)
    assert tab.complaints == []


async def test_paused_nothing_moves_and_on_resume_nothing_is_missing(tab: Any) -> None:
    page, plane = tab.page, tab.plane
    await open_by_link(tab)
    await is_live(tab)
    await page.get_by_role("button", name="Pause").click()
    await plane.decide("01R0")
    await page.wait_for_timeout(1200)
    await expect(page.locator("#rows tr")).to_have_count(0)
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator("#rows tr")).to_have_count(1)


async def test_names_full_of_markup_do_nothing_live_or_in_the_details(tab: Any) -> None:
    page, plane = tab.page, tab.plane
    await open_by_link(tab)
    await is_live(tab)
    nasty = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    await plane.decide(
        "01R0",
        principal=f'User::"{nasty}"',
        resource='Model::"x" hx-get=/sign-out hx-trigger=load \'>',
        determining=("<div hx-get='/sign-out' hx-trigger='load'>",),
        detail=nasty,
        context={nasty: nasty},
        would_allow=({"say": nasty, "change": nasty},),
    )
    await page.locator("#rows tr a").first.click()
    await expect(page.get_by_role("complementary", name="Why")).to_contain_text("<script>")
    assert await page.title() == "Decisions · Doorward"
    assert (
        await page.locator("#rows img, #rows script, #why img, #why script, [hx-get='/sign-out']").count()
        == 0
    )
    assert tab.complaints == []


async def test_when_the_session_ends_elsewhere_the_live_page_leaves(tab: Any) -> None:
    page, plane = tab.page, tab.plane
    await open_by_link(tab)
    await is_live(tab)
    other = await tab.context.new_page()
    await other.goto(plane.url)
    await other.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in to Doorward")).to_be_visible()


async def test_a_used_link_says_so_and_how_to_get_another(tab: Any) -> None:
    link = await tab.plane.link("session")
    for _ in range(2):
        await tab.page.goto("about:blank")
        await tab.page.goto(link)
        await tab.page.get_by_role("button", name="Open the console").click()
        await expect(tab.page.locator("h1, #status.bad").last).to_be_visible()
    await expect(tab.page.get_by_role("status")).to_contain_text("doorward admin link")
    assert "#" not in tab.page.url


async def test_without_script_the_page_still_shows_and_filters(tab: Any) -> None:
    await tab.plane.decide("01R0")
    await open_by_link(tab)
    cookies = await tab.context.cookies()
    plain = await tab.context.browser.new_context(java_script_enabled=False)
    await plain.add_cookies(cookies)
    page = await plain.new_page()
    await page.goto(f"{tab.plane.url}/?decision=allow")
    await expect(page.locator("#rows tr")).to_have_count(1)
    await page.get_by_role("button", name="Filter").click()
    await page.locator("#rows a").click()
    await expect(page.get_by_role("heading", level=2)).to_contain_text("dana")


async def test_another_origin_can_neither_frame_nor_read_it(tab: Any) -> None:
    await open_by_link(tab)
    page = await tab.context.new_page()
    await page.goto(f"http://127.0.0.1:{tab.plane.port}/sign-in")
    await page.goto("about:blank")
    outcome = await page.evaluate(
        """async (url) => {
            const frame = document.createElement("iframe");
            frame.src = url;
            document.body.append(frame);
            await new Promise((done) => frame.addEventListener("load", done));
            let framed = "readable";
            try { framed = frame.contentDocument === null ? "blocked" : frame.contentDocument.title; }
            catch { framed = "blocked"; }
            const asked = fetch(url + "/api/v1/state", { credentials: "include" });
            const read = await asked.then(() => "read", () => "blocked");
            return [framed, read];
        }""",
        tab.plane.url,
    )
    assert outcome == ["blocked", "blocked"]


@pytest.mark.parametrize("late", ["vendor/htmx.js", "vendor/htmx-sse.js", "console.js"])
async def test_the_page_comes_alive_though_one_script_is_late(tab: Any, late: str) -> None:
    async def slowly(route: Any) -> None:
        await asyncio.sleep(0.7)
        await route.continue_()

    await tab.page.route(f"**/static/{late}", slowly)
    await open_by_link(tab)
    await is_live(tab)
    await tab.plane.decide("01R0")
    await expect(tab.page.locator("#rows tr")).to_have_count(1)
    assert tab.complaints == []
