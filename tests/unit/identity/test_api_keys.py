from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from doorward.core.errors import InvalidRequestError
from doorward.core.model import EntityUid
from doorward.identity import api_keys

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DANA = EntityUid.of("User", "dana")


def test_a_key_is_256_random_bits_with_a_prefix_and_a_checksum() -> None:
    texts = {api_keys.new_text() for _ in range(200)}
    assert len(texts) == 200
    assert all(text.startswith("dw_") and len(text) == 52 for text in texts)
    assert api_keys.new_text(lambda n: b"\xff" * n) != api_keys.new_text(lambda n: b"\xfe" * n)


def test_the_record_holds_the_hash_and_never_the_key() -> None:
    record, text = api_keys.create(key_id="01K", subject=DANA, now=NOW)
    assert record.hash == hashlib.sha256(text.reveal().encode()).hexdigest()
    assert text.reveal() not in repr(record)
    assert text.reveal()[3:] not in repr(text)
    assert record.s3_secret is None


def test_one_changed_character_anywhere_fails_the_checksum() -> None:
    text = api_keys.new_text()
    assert api_keys.digest_of(text) is not None
    for place in range(3, len(text)):
        other = "a" if text[place] != "a" else "b"
        assert api_keys.digest_of(text[:place] + other + text[place + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    ["", "dw_", "dw_" + "a" * 49, "dw_' OR 1=1 --", "DW_" + "a" * 49, "dw_" + "é" * 49, "dw_%s%n" + "0" * 44],
)
def test_what_is_no_key_has_no_digest(text: str) -> None:
    assert api_keys.digest_of(text) is None


def test_a_key_with_a_newline_or_space_around_it_is_no_key() -> None:
    text = api_keys.new_text()
    assert all(api_keys.digest_of(odd) is None for odd in (text + "\n", " " + text, text + " "))


@pytest.mark.parametrize(("text", "lifetime"), [("90d", timedelta(90)), ("12h", timedelta(hours=12))])
def test_a_lifetime_is_a_number_and_a_unit(text: str, lifetime: timedelta) -> None:
    assert api_keys.parse_lifetime(text) == lifetime
    record, _ = api_keys.create(key_id="01K", subject=DANA, now=NOW, lifetime=lifetime)
    assert record.expires == NOW + lifetime


@pytest.mark.parametrize(
    "text", ["", "0d", "-1d", "90", "d", "1y", "1.5d", "9999999d", "99999d", " 90d", "९d"]
)
def test_a_lifetime_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        api_keys.parse_lifetime(text)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "office", "", "10.0.0.0/33"])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    with pytest.raises(InvalidRequestError):
        api_keys.create(key_id="01K", subject=DANA, now=NOW, networks=(network,))


def test_the_access_key_id_fits_what_s3_clients_accept() -> None:
    record, _ = api_keys.create(key_id="01JDZ0000000000000000000AB", subject=DANA, now=NOW)
    assert record.access_key_id == "DW01JDZ0000000000000000000AB"
    assert 16 <= len(record.access_key_id) <= 128


def test_a_key_written_where_texts_are_kept_is_hidden() -> None:
    key = api_keys.new_text()
    assert api_keys.hidden(f"/llm/v1/{key}/x?k={key}") == "/llm/v1/dw_…/x?k=dw_…"
    assert api_keys.hidden("/llm/v1/dw_short") == "/llm/v1/dw_short"
