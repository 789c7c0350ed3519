"""The console attacked from other pages, by names in requests, by malformed input."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.browser_client import ABSENT, BrowserClient
from support.console_people import opened
from support.console_plane import Plane, running

EVIL = "http://evil.example"


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as plane:
        yield plane


@pytest.fixture
def browser(plane: Plane) -> BrowserClient:
    return BrowserClient(plane.port)


class TestOtherPages:
    @pytest.mark.parametrize(
        "host", ["evil.example", "localhost.evil.example", "x@localhost", "localhost:x", ""]
    )
    async def test_a_host_that_is_not_ours_is_refused(self, browser: BrowserClient, host: str) -> None:
        for path in ("/", "/healthz", "/live", "/static/console.css"):
            assert (await browser.get(path, host=host)).status in {400, 421}

    @pytest.mark.parametrize(
        "sent",
        [
            {"origin": EVIL, "sec_fetch_site": "cross-site"},
            {"origin": EVIL, "sec_fetch_site": ABSENT},
            {"origin": "http://localhost:1", "sec_fetch_site": "same-site"},
            {"origin": "null", "sec_fetch_site": "cross-site"},
            {"origin": "null", "sec_fetch_site": ABSENT},
            {"origin": ABSENT, "sec_fetch_site": ABSENT},
            {"origin": ABSENT, "sec_fetch_site": "cross-site"},
        ],
    )
    async def test_a_write_from_elsewhere_is_refused(self, plane: Plane, sent: dict[str, str]) -> None:
        browser = await opened(plane)
        for path in ("/sign-out", "/api/v1/apply", "/open/redeem", "/sign-in/options"):
            assert (await browser.post(path, {}, **sent)).status == 403
        assert (await browser.get("/api/v1/state")).status == 200

    @pytest.mark.parametrize("path", ["/live", "/api/v1/decisions/stream", "/api/v1/state", "/"])
    @pytest.mark.parametrize(
        "sent",
        [
            {"origin": EVIL, "sec_fetch_site": "cross-site"},
            {"origin": "http://localhost:1", "sec_fetch_site": "same-site"},
            {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
            {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
            {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"},
        ],
    )
    async def test_a_stream_or_a_read_from_elsewhere_is_refused(
        self, plane: Plane, path: str, sent: dict[str, str]
    ) -> None:
        browser = await opened(plane)
        assert (await browser.get(path, **sent)).status == 403

    async def test_no_answer_lets_another_origin_read(self, browser: BrowserClient) -> None:
        for method in ("GET", "OPTIONS", "POST"):
            answer = await browser.send(method, "/healthz", origin=EVIL)
            assert not any(name.lower().startswith("access-control") for name, _ in answer.headers)

    @pytest.mark.parametrize(
        "path", ["/sign-in", "/nowhere", "/api/v1/state", "/static/console.css", "/healthz"]
    )
    async def test_every_answer_carries_the_headers(self, browser: BrowserClient, path: str) -> None:
        answer = await browser.get(path, accept="text/html")
        policy = answer.header("content-security-policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.header("x-frame-options") == "DENY"
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "no-referrer"
        assert answer.header("cross-origin-opener-policy") == "same-origin"
        assert answer.header("cross-origin-resource-policy") == "same-origin"
        assert answer.header("cache-control") == ("no-cache" if path.startswith("/static") else "no-store")

    async def test_no_page_holds_a_script_or_a_style_of_its_own(self, plane: Plane) -> None:
        browser = await opened(plane)
        await plane.decide("01R")
        for path in ("/", "/decisions/01R", "/sign-in", "/enrol", "/open", "/docs", "/nowhere"):
            text = (await browser.get(path, accept="text/html")).text
            assert "<script>" not in text
            assert "style=" not in text
            assert " onload=" not in text
            assert "http://" not in text
            assert "https://" not in text

    async def test_names_out_of_requests_stay_text(self, plane: Plane) -> None:
        browser = await opened(plane)
        await plane.decide(
            "01R",
            principal='User::"<script>alert(1)</script>"',
            resource='Model::"llm/\u202egpj.exe\u0000"',
            detail="<img src=x onerror=alert(2)>",
            determining=('"><svg onload=alert(3)>',),
            context={"<b>": "</dd><script>"},
            would_allow=({"say": "<a href=javascript:alert(4)>", "change": "</code>"},),
        )
        for path in ("/", "/decisions/01R"):
            text = (await browser.get(path, accept="text/html")).text
            for danger in (
                "<script>alert",
                "<img src=x",
                "<svg onload",
                "<b>",
                "<a href=javascript",
                "\u202e",
            ):
                assert danger not in text
            assert "&lt;script&gt;alert(1)" in text
        assert "\\u202egpj.exe\\u0000" in (await browser.get("/decisions/01R", accept="text/html")).text


class TestBadInput:
    async def test_an_unknown_address_is_a_problem(self, browser: BrowserClient) -> None:
        answer = await browser.get("/api/v1/nothing")
        assert (answer.status, answer.json["code"]) == (404, "not_found")

    async def test_an_unknown_field_is_named_and_its_value_is_not_repeated(self, plane: Plane) -> None:
        status, problem = await plane.operator("POST", "/api/v1/admin/link", {"kind": "s3cr3t-value"})
        assert (status, problem["code"]) == (400, "invalid_request")
        assert "body.kind" in problem["detail"]
        assert "s3cr3t-value" not in str(problem)

    async def test_a_body_over_the_bound_is_413(self, plane: Plane) -> None:
        status, problem = await plane.operator("POST", "/api/v1/admin/link", {"kind": "x" * (4 << 20)})
        assert (status, problem["code"]) == (413, "payload_too_large")

    @pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "CONNECT", "PROPFIND"])
    async def test_odd_methods_are_refused(self, browser: BrowserClient, method: str) -> None:
        assert (await browser.send(method, "/")).status == 405

    async def test_health_needs_nothing_and_names_nobody(self, browser: BrowserClient) -> None:
        assert (await browser.get("/healthz")).status == 200
        assert (await browser.get("/metrics")).status == 200
        assert (await browser.get("/readyz")).json["ready"] is True

    async def test_the_description_and_the_docs_load_nothing_from_elsewhere(
        self, browser: BrowserClient
    ) -> None:
        assert "/api/v1/state" in (await browser.get("/openapi.json")).json["paths"]
        docs = (await browser.get("/docs", accept="text/html")).text
        assert "/api/v1/state" in docs
        assert "//cdn" not in docs


async def test_every_route_of_the_api_wants_a_session_over_tcp(browser: BrowserClient) -> None:
    paths = (await browser.get("/openapi.json")).json["paths"]
    routes = [(path, method) for path, methods in paths.items() for method in methods]
    asked = [(path, method) for path, method in routes if path.startswith("/api/")]
    assert len(asked) > 15
    for path, method in asked:
        address = path.replace("{", "").replace("}", "")
        answer = await browser.send(method.upper(), address, "{}")
        # A malformed body may be said before a session is asked for; nothing else may.
        assert answer.status in {401, 400}, path
        if answer.status == 400:
            assert answer.json["code"] == "invalid_request"
