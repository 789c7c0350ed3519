"""A hidden name must not be told from one that does not exist: compared byte for byte on the wire."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.attacker import Attacker, attacked, comparable, status

# As long as the hidden name, so that lengths can be compared too.
HIDDEN, MISSING = "secret", "secreu"
CONDITIONS = (
    "If-Match: *", "If-None-Match: *", "Range: bytes=0-1", "Range: bytes=999999-",
    "If-Modified-Since: Mon, 23 Nov 2020 00:00:00 GMT", "x-amz-checksum-mode: ENABLED",
)  # fmt: skip
LISTS = (
    "?list-type=2&prefix=secret/", "?list-type=2&prefix=secret", "?list-type=2&prefix=secret/board.csv",
    "?list-type=2&prefix=secret/&delimiter=/", "?prefix=secret/&max-keys=1",
    "?list-type=2&start-after=secret/a&max-keys=1&prefix=secret/&encoding-type=url",
)  # fmt: skip


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    with attacked(tmp_path_factory.mktemp("hidden")) as running:
        yield running


def same(
    attacker: Attacker, line: str, user: str, body: bytes = b"", *headers: str, kind: str = "xml"
) -> int:
    """Ask for the hidden and for a missing name; fail if the answers differ, else return their status."""
    hidden = attacker.ask(line, user, body, headers, kind)
    old, new = HIDDEN.encode(), MISSING.encode()
    missing = attacker.ask(
        line.replace(HIDDEN, MISSING), user, body.replace(old, new),
        [header.replace(HIDDEN, MISSING) for header in headers], kind,
    )  # fmt: skip
    assert comparable(hidden) == comparable(missing).replace(new, old)
    return status(hidden)


@pytest.mark.parametrize("user", ["dana", "eli", "vic"])
def test_reading_a_hidden_object(attacker: Attacker, user: str) -> None:
    for path in ("/store/training/secret", "/store/training/secret/board.csv"):
        # Who may not read anything there is refused the missing name too.
        assert same(attacker, f"GET {path}", user) == (403 if user == "vic" else 404)
        assert same(attacker, f"HEAD {path}", user) == 404
        for condition in CONDITIONS:
            same(attacker, f"GET {path}", user, b"", condition)
            same(attacker, f"HEAD {path}", user, b"", condition)


@pytest.mark.parametrize("user", ["dana", "eli"])
@pytest.mark.parametrize("query", LISTS)
def test_listing_a_hidden_prefix(attacker: Attacker, user: str, query: str) -> None:
    assert same(attacker, f"GET /store/training{query}", user) == 200


def test_changing_a_hidden_object_without_the_right_to(attacker: Attacker) -> None:
    path = "/store/training/secret/board.csv"
    assert same(attacker, f"PUT {path}", "dana", b"x") == 403
    assert same(attacker, f"DELETE {path}", "dana") == 403
    assert same(attacker, f"POST {path}?uploads", "dana") == 403
    assert same(attacker, f"PUT {path}?uploadId=abc&partNumber=1", "dana", b"x") == 403
    deletion = b"<Delete><Object><Key>secret/board.csv</Key></Object><Object><Key>q</Key></Object></Delete>"
    assert same(attacker, "POST /store/training?delete", "dana", deletion) == 403


def test_deleting_and_copying_a_hidden_object_with_the_right_to_all_others(attacker: Attacker) -> None:
    source = "x-amz-copy-source: /training/secret/board.csv"
    target = "PUT /store/training/copy.csv"
    assert same(attacker, target, "eli", b"", source, "Content-Length: 0") == 404
    match = 'x-amz-copy-source-if-match: "abc"'
    assert same(attacker, target, "eli", b"", source, match, "Content-Length: 0") == 404
    assert same(attacker, "DELETE /store/training/secret/board.csv", "eli") == 204
    deletion = b"<Delete><Object><Key>secret/board.csv</Key></Object></Delete>"
    assert same(attacker, "POST /store/training?delete", "eli", deletion) == 200


@pytest.mark.parametrize(
    "line",
    ["GET /store/payroll/p.csv", "HEAD /store/payroll/p.csv", "GET /store/payroll?list-type=2",
     "HEAD /store/payroll", "GET /store/payroll?location", "DELETE /store/payroll/p.csv"],
)  # fmt: skip
def test_a_hidden_bucket(attacker: Attacker, line: str) -> None:
    hidden = attacker.ask(line, "eli")
    missing = attacker.ask(line.replace("payroll", "payrolm"), "eli")
    assert comparable(hidden) == comparable(missing).replace(b"payrolm", b"payroll")


def test_a_hidden_model(attacker: Attacker) -> None:
    assert comparable(attacker.chat("dana", HIDDEN)) == comparable(attacker.chat("dana", MISSING)).replace(
        MISSING.encode(), HIDDEN.encode()
    )
    assert same(attacker, "GET /llm/v1/models/secret", "dana") == 404
