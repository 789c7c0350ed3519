"""A JSON body has one reading or none (attacks 40-44)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.core.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedMediaError
from doorward.core.wire import Peer, Request
from doorward.gateway.strict_json import MAX_DEPTH, MAX_KEYS, read_json, read_json_body, refuse_variants


class NoBody:
    async def chunks(self) -> AsyncIterator[bytes]:
        yield b""


def request(*headers: tuple[str, str]) -> Request:
    return Request(
        id="r",
        method="POST",
        path="/",
        raw_path="/",
        query=(),
        raw_query="",
        headers=headers,
        peer=Peer(ip="127.0.0.1"),
        body=NoBody(),
    )


REFUSED = {
    "empty": b"",
    "blank": b" ",
    "nul": b"\x00",
    "array": b"[]",
    "text": b'"{}"',
    "double encoded": b'"{\\"name\\": \\"x\\"}"',
    "number": b"1",
    "null": b"null",
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-16 without mark": '{"a":1}'.encode("utf-16-le"),
    "utf-32": '{"a":1}'.encode("utf-32"),
    "utf-7": b"+AHsAIgBhACIAOgAxAH0-",
    "latin-1": '{"a":"é"}'.encode("latin-1"),
    "overlong": b'{"a":"\xc0\xaf"}',
    "surrogate bytes": b'{"a":"\xed\xa0\x80"}',
    "lone high surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":"\\udc00x"}',
    "lone surrogate in a key": b'{"\\ud800":1}',
    "swapped surrogates": b'{"a":"\\ude00\\ud83d"}',
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":Infinity}',
    "minus infinity": b'{"a":-Infinity}',
    "too large a number": b'{"a":1e999}',
    "thousands of digits": b'{"a":' + b"9" * 5000 + b"}",
    "leading zero": b'{"a":01}',
    "plus sign": b'{"a":+1}',
    "bare point": b'{"a":1.}',
    "point first": b'{"a":.5}',
    "hexadecimal": b'{"a":0x1}',
    "no exponent": b'{"a":1e}',
    "single quotes": b"{'a':1}",
    "bare key": b"{a:1}",
    "number key": b"{1:1}",
    "trailing comma": b'{"a":1,}',
    "double comma": b'{"a":1,,"b":2}',
    "missing value": b'{"a":}',
    "missing colon": b'{"a" 1}',
    "comment": b'{"a":1/* x */}',
    "line comment": b'{"a":1}//x',
    "trailing text": b'{"a":1}x',
    "two documents": b'{"a":1}{"a":2}',
    "cut off": b'{"a":1',
    "cut off in text": b'{"a":"x',
    "raw newline in text": b'{"a":"x\ny"}',
    "raw tab in text": b'{"a":"x\ty"}',
    "bad escape": b'{"a":"\\x41"}',
    "short unicode escape": b'{"a":"\\u00e"}',
    "capital literal": b'{"a":True}',
    "form feed": b'\x0c{"a":1}',
    "no-break space": b'\xc2\xa0{"a":1}',
    "duplicate": b'{"model":"a","model":"b"}',
    "equal duplicate": b'{"model":"a","model":"a"}',
    "escaped duplicate": b'{"model":"a","mo\\u0064el":"b"}',
    "nested duplicate": b'{"a":{"b":[{"c":1,"c":2}]}}',
    "empty duplicate": b'{"":1,"":2}',
    "null duplicate": b'{"\\u0000":1,"\\u0000":2}',
}
ACCEPTED = {
    "empty object": (b"{}", {}),
    "surrounding space": (b' \t\r\n{"a" : 1}\n', {"a": 1}),
    "pair of surrogates": (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    "escaped nul": (b'{"a":"\\u0000"}', {"a": "\0"}),
    "large integer": (b'{"a":12345678901234567890123}', {"a": 12345678901234567890123}),
    "tiny number": (b'{"a":1e-999}', {"a": 0.0}),
    "same key in two objects": (b'{"a":{"x":1},"b":{"x":2}}', {"a": {"x": 1}, "b": {"x": 2}}),
    "non-ascii": ('{"ä":"日本"}'.encode(), {"ä": "日本"}),
    "non-character": (b'{"a":"\\uffff"}', {"a": "\uffff"}),
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_two_readers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read_json(body)
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(("body", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_plain_json_is_read_as_it_stands(body: bytes, expected: Any) -> None:
    assert read_json(body) == expected


@pytest.mark.parametrize(
    "key",
    [
        "Model",
        "MODEL",
        "mOdel",
        "\uff4dodel",
        "model\u200b",
        " model",
        "mo-del",
        "_model",
        "mode\u2113",
        "m\u00f6del",
    ],
)
def test_another_spelling_of_a_known_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError, match="model"):
        read_json(json.dumps({"model": "a", key: "b"}).encode(), known={"model"})


def test_long_s_and_kelvin_sign_fold_to_ascii() -> None:
    for key, known in (("me\u017fsages", "messages"), ("to\u212aens", "tokens"), ("runId", "run_id")):
        with pytest.raises(InvalidRequestError, match=known):
            refuse_variants({key: 1}, {known})


def test_known_keys_themselves_and_other_keys_pass() -> None:
    assert read_json(b'{"model":1,"modeler":2}', known={"model"}) == {"model": 1, "modeler": 2}


def nested(depth: int, opening: str, closing: str) -> bytes:
    return ('{"a":' + opening * (depth - 1) + closing * (depth - 1) + "}").encode()


def test_depth_is_bounded_exactly() -> None:
    assert read_json(nested(MAX_DEPTH, "[", "]"))
    with pytest.raises(InvalidRequestError, match="deeply"):
        read_json(nested(MAX_DEPTH + 1, "[", "]"))


@pytest.mark.parametrize("depth", [500, 2_000, 100_000])
def test_any_greater_depth_is_refused_without_harm(depth: int) -> None:
    for body in (nested(depth, "[", "]"), b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth):
        with pytest.raises(InvalidRequestError):
            read_json(body)


def test_a_million_keys_are_refused() -> None:
    body = json.dumps({str(number): 0 for number in range(MAX_KEYS + 1)}).encode()
    with pytest.raises(InvalidRequestError, match="keys"):
        read_json(body)


def test_size_is_bounded_before_anything_is_parsed() -> None:
    with pytest.raises(PayloadTooLargeError):
        read_json(b'{"a":"' + b"x" * 100 + b'"}', max_bytes=100)


def test_a_chat_of_one_megabyte_is_read_in_less_than_50_ms() -> None:
    message = {"role": "user", "content": "word " * 400}
    body = json.dumps({"model": "m", "messages": [message] * 500}).encode()
    assert len(body) > 1_000_000
    spent = []
    for _ in range(5):
        before = time.process_time()
        read_json(body, known={"model"})
        spent.append(time.process_time() - before)
    assert min(spent) < 0.05


@pytest.mark.parametrize(
    "declared",
    [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        "application/json; x=y",
        "application/jsonl",
        "application/json, text/plain",
        "application/vnd.api+json",
    ],
)
def test_a_body_declared_as_something_else_is_415(declared: str) -> None:
    with pytest.raises(UnsupportedMediaError):
        read_json_body(request(("content-type", declared)), b"{}")


def test_a_body_without_a_type_or_with_two_is_refused() -> None:
    with pytest.raises(UnsupportedMediaError):
        read_json_body(request(), b"{}")
    with pytest.raises(InvalidRequestError):
        read_json_body(request(("content-type", "application/json"), ("content-type", "text/plain")), b"{}")


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, gzip", "x-unknown"])
def test_a_coded_body_is_415(coding: str) -> None:
    with pytest.raises(UnsupportedMediaError):
        read_json_body(request(("content-type", "application/json"), ("content-encoding", coding)), b"{}")


@pytest.mark.parametrize(
    "declared",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=UTF-8",
        'application/json;charset="utf-8"',
    ],
)
def test_plain_json_types_are_read(declared: str) -> None:
    assert read_json_body(request(("content-type", declared)), b'{"a":1}') == {"a": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_every_object_that_python_writes_is_read_back_equal(document: dict[str, Any]) -> None:
    try:
        written = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert read_json(written) == json.loads(written)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_never_fail_otherwise(body: bytes) -> None:
    try:
        read = read_json(body)
    except InvalidRequestError:
        return
    assert json.loads(body) == read


@given(st.text(min_size=1, max_size=8).filter(lambda key: key.isprintable()), st.data())
def test_no_escaped_spelling_of_a_key_gets_past_the_duplicate_check(key: str, data: st.DataObject) -> None:
    def spelled() -> str:
        units = [
            key.encode("utf-16-be")[i : i + 2] for i in range(0, 2 * len(key.encode("utf-16-be")) // 2, 2)
        ]
        escaped = "".join(f"\\u{unit.hex()}" for unit in units)
        return data.draw(st.sampled_from([json.dumps(key)[1:-1], escaped]))

    body = f'{{"{spelled()}":1,"{spelled()}":2}}'.encode()
    with pytest.raises(InvalidRequestError, match="twice"):
        read_json(body)


@pytest.mark.parametrize(
    "body", [b'{"m":[' + b"[]," * 400_000 + b"[]]}", b'{"m":[' + b"1," * 2_000_000 + b"1]}"]
)
def test_millions_of_tiny_values_are_refused_before_they_are_built(body: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(PayloadTooLargeError, match="values"):
        read_json(body)
    assert time.monotonic() - started < 0.5


def test_brackets_and_commas_in_text_are_no_values() -> None:
    text = '[{,"\\' * 200_000
    assert read_json(json.dumps({"prompt": text}).encode()) == {"prompt": text}
