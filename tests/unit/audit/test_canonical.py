from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.audit import canonical

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner), max_leaves=20
)
COMMON = {"id": "a", "kind": "decision", "time": "t", "request_id": "r"}


def sealed(**fields: object) -> bytes:
    document = {**COMMON, **canonical.plain(fields)}
    return canonical.sealed(document, seq=1, writer="w", previous=canonical.GENESIS)[0][:-1]


@given(DOCUMENTS)
def test_whatever_a_caller_sends_becomes_one_line_of_printable_ascii_that_reads_back(value: object) -> None:
    line = sealed(payload=value)
    assert all(0x20 <= byte <= 0x7E for byte in line)
    document = canonical.opened(line)
    assert document["payload"] == canonical.plain(value)
    assert canonical.hash_of(document) == document["hash"]


@given(DOCUMENTS)
def test_a_written_record_holds_no_float(value: object) -> None:
    seen: list[str] = []
    json.loads(sealed(payload=value), parse_float=seen.append)
    assert seen == []


@given(st.dictionaries(st.text(), st.text(), min_size=2), st.randoms())
def test_the_order_keys_were_set_in_does_not_show(fields: dict[str, str], random: object) -> None:
    shuffled = list(fields.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' Random
    assert canonical.canonical(fields) == canonical.canonical(dict(shuffled))


@given(st.data())
def test_no_single_byte_can_change_unnoticed(data: st.DataObject) -> None:
    line = bytearray(sealed(path="/store/training/a.csv", n=7, flag=True))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    try:
        document = canonical.opened(bytes(line))
        assert canonical.hash_of(document) != document["hash"]
    except canonical.NotCanonicalError:
        pass


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b'"kind"', b' "kind"'),
        lambda line: line.replace(b'{"hash"', b'{"hash":"x","hash"'),
        lambda line: line.replace(b"decision", b"\\u0064ecision"),
        lambda line: b"[" + line + b"]",
        lambda line: line + b" ",
        lambda line: line[:0] + b'{"deep":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_another_spelling_of_the_same_record_is_refused(spoil: object) -> None:
    with pytest.raises(canonical.NotCanonicalError):
        canonical.opened(spoil(sealed()))  # type: ignore[operator]  # a lambda


def test_a_path_that_is_not_utf8_is_still_on_record() -> None:
    document = canonical.opened(sealed(path=b"/\xff".decode("utf-8", "surrogateescape")))
    assert document["path"] == "/\\udcff"


def test_the_chain_covers_writer_number_and_the_hash_before() -> None:
    first, digest = canonical.sealed(COMMON, seq=1, writer="w", previous=canonical.GENESIS)
    others = [
        canonical.sealed(COMMON, seq=2, writer="w", previous=canonical.GENESIS)[1],
        canonical.sealed(COMMON, seq=1, writer="v", previous=canonical.GENESIS)[1],
        canonical.sealed(COMMON, seq=1, writer="w", previous=digest)[1],
    ]
    assert len({digest, *others}) == 4
    assert first.endswith(b"\n")
