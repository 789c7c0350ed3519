"""Sessions end: by time, by idleness, by sign-out; and only their hash is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doorward.console import links
from doorward.console import session as sessions
from doorward.console.session import Place
from doorward.core.accounts import LinkKind
from doorward.core.clock import ManualClock
from doorward.core.errors import DeniedError
from doorward.core.model import Entity
from doorward.settings import Settings
from doorward.store.opened import Store

HERE = Place("office", "firefox")


@pytest.fixture
def services(tmp_path: Path) -> Any:
    store = Store.open("sqlite://", tmp_path)
    yield SimpleNamespace(
        clock=ManualClock(datetime(2026, 1, 1, tzinfo=UTC)),
        directory=SimpleNamespace(
            accounts=store.accounts,
            snapshot=SimpleNamespace(sign_out_of=lambda _: None, entity=lambda _: None),
        ),
        settings=Settings(),
    )
    store.close()


def begin(services: Any, replaces: str | None = None) -> str:
    return sessions.start(
        services,
        principal=None,
        operator="operator:0",
        method="link",
        replaces=replaces,
        place=HERE,
        mfa=False,
    )


def test_a_session_lives_while_it_is_used_and_eight_hours_at_most(services: Any) -> None:
    token = begin(services)
    for _ in range(15):
        services.clock.advance(timedelta(minutes=31).total_seconds())
        assert sessions.current(services, token, HERE) is not None
    services.clock.advance(timedelta(minutes=16).total_seconds())
    assert sessions.current(services, token, HERE) is None


def test_an_idle_session_ends_after_an_hour_for_good(services: Any) -> None:
    token = begin(services)
    services.clock.advance(3600)
    assert sessions.current(services, token, HERE) is None
    services.clock.advance(-3600)
    assert sessions.current(services, token, HERE) is None


def test_watching_alone_does_not_keep_a_session_alive(services: Any) -> None:
    token = begin(services)
    for _ in range(12):
        services.clock.advance(300)
        last = sessions.current(services, token, HERE, touch=False)
    assert last is None


@pytest.mark.parametrize("token", [None, "", "x", "x" * 10_000])
def test_a_token_nobody_gave_opens_nothing(services: Any, token: str | None) -> None:
    begin(services)
    assert sessions.current(services, token, HERE) is None


def test_a_new_session_replaces_the_browsers_old_one(services: Any) -> None:
    old = begin(services)
    new = begin(services, replaces=old)
    assert sessions.current(services, old, HERE) is None
    assert sessions.current(services, new, HERE) is not None


@pytest.mark.parametrize("elsewhere", [Place("home", "firefox"), Place("office", "curl")])
def test_a_session_used_from_elsewhere_ends_for_everybody(services: Any, elsewhere: Place) -> None:
    token = begin(services)
    assert sessions.current(services, token, elsewhere) is None
    assert sessions.current(services, token, HERE) is None


def test_tokens_have_256_bits_and_never_repeat() -> None:
    tokens = {sessions.new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert min(map(len, tokens)) >= 43


def test_a_link_is_over_after_fifteen_minutes(services: Any) -> None:
    token = links.create(services, LinkKind.SESSION, "operator:0").partition("#")[2]
    services.clock.advance(899)
    assert links.peek(services, token, LinkKind.SESSION).operator == "operator:0"
    services.clock.advance(1)
    with pytest.raises(DeniedError, match="15 minutes"):
        links.redeem(services, token, LinkKind.SESSION)


def test_on_loopback_links_say_localhost_because_passkeys_need_a_name(services: Any) -> None:
    assert links.create(services, LinkKind.ENROL, "operator:0").startswith("http://localhost:8641/enrol#")


def test_the_first_admin_link_is_made_only_while_no_admin_can_sign_in(services: Any) -> None:
    assert links.first_admin_link(services, "doorward") is not None
    services.directory.accounts = SimpleNamespace(holders=lambda: {links.ADMIN})
    services.directory.snapshot.entity = Entity
    assert links.first_admin_link(services, "doorward") is None
