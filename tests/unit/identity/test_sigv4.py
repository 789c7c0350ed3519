"""SigV4 against botocore's own signer: what it signs verifies, and nothing else does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.core.clock import ManualClock
from doorward.core.errors import DoorwardError, InvalidRequestError, UnauthenticatedError, UnavailableError
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import Request
from doorward.identity.replays import spend
from doorward.identity.sigv4 import presented, verify
from doorward.identity.sigv4_signing import S3Keys, read_query, sign
from support.s3_requests import DANA, HOST, KEY_ID, NOW, SECRET, Registry, bare, signed

CLOCK = ManualClock(NOW)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
SPECIAL = st.text(" +;~&=/?%ü☃'()!*@:$,", max_size=10)


def check(request: Request, registry: Registry | None = None, replays: MemoryOneTime | None = None):
    known = registry or Registry()
    one_time = MemoryOneTime(CLOCK) if replays is None else replays
    return asyncio.run(verify(request, lambda: known, CLOCK, one_time=one_time))


def changed(request: Request, **headers: str) -> Request:
    """Return the request with headers set to something else, or added."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = tuple((k, v) for k, v in request.headers if k not in names)
    return msgspec.structs.replace(request, headers=(*kept, *names.items()))


@given(
    key=TEXT | SPECIAL,
    names=st.dictionaries(TEXT | SPECIAL, TEXT | SPECIAL, max_size=4),
    meta=st.text("ab  ~x", max_size=9),
)
def test_whatever_botocore_signs_verifies(key: str, names: dict[str, str], meta: str) -> None:
    target = f"/store/training/{quote(key, safe='/~')}"
    request = signed(
        "GET", target, params={k: v for k, v in names.items() if k}, headers={"x-amz-meta-a": meta}
    )
    caller = check(request)
    assert (caller.principal, caller.credential, caller.method) == (DANA, "k1", "sigv4")
    assert not caller.device_proven


@given(key=TEXT | SPECIAL, expires=st.integers(1, 900))
def test_what_botocore_presigns_verifies(key: str, expires: int) -> None:
    assert check(signed("GET", f"/store/t1/{quote(key, safe='/~')}", presign=expires)).principal == DANA


@given(key=TEXT | SPECIAL, names=st.dictionaries(TEXT | SPECIAL, TEXT | SPECIAL, max_size=4))
def test_what_we_sign_is_what_botocore_signs(key: str, names: dict[str, str]) -> None:
    path = f"/store/training/{quote(key, safe='/~')}"
    query = {k: v for k, v in names.items() if k}
    headers = sign(
        method="GET",
        host=HOST,
        path=path,
        query=query.items(),
        headers=[],
        now=NOW,
        payload="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        keys=S3Keys(KEY_ID, SECRET, "eu-west-1"),
    )
    theirs = signed("GET", path, params=query)
    assert (
        dict(headers)["authorization"].rpartition("=")[2]
        == (theirs.header("authorization") or "").rpartition("=")[2]
    )


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_a_request_signed_more_than_five_minutes_away_is_refused(seconds: int) -> None:
    with pytest.raises(UnauthenticatedError, match="5 minutes"):
        check(signed(at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_request_signed_within_five_minutes_is_accepted(seconds: int) -> None:
    assert check(signed(at=NOW + timedelta(seconds=seconds)))


@pytest.mark.parametrize(
    "request_",
    [
        signed(secret="another"),
        signed(key_id="DW01OTHER"),
        changed(signed(), host="elsewhere.example"),
        changed(signed(), x_amz_date="20261123T120001Z"),
        msgspec.structs.replace(signed(), method="DELETE"),
        msgspec.structs.replace(signed(), raw_path="/store/training/b.csv"),
        msgspec.structs.replace(signed(params={"prefix": "a"}), raw_query="prefix=b"),
        msgspec.structs.replace(signed(), raw_query="acl"),
        changed(signed(headers={"x-amz-meta-a": "1"}), x_amz_meta_a="2"),
        changed(signed(), x_amz_copy_source="training/secret.csv"),
        changed(signed(), x_amz_content_sha256="0" * 64),
        changed(signed(), x_amz_security_token="t"),
        bare(headers={"authorization": "AWS4-HMAC-SHA256 Credential=a"}),
        bare(headers={"authorization": "AWS DW01KEY:c2ln"}),
    ],
)
def test_anything_changed_after_signing_is_refused(request_: Request) -> None:
    with pytest.raises(UnauthenticatedError):
        check(request_)


def test_a_signed_header_given_twice_is_refused() -> None:
    request = signed(headers={"x-amz-meta-a": "1"})
    with pytest.raises(DoorwardError):
        check(msgspec.structs.replace(request, headers=(*request.headers, ("x-amz-meta-a", "1"))))


def test_an_x_amz_header_that_is_not_signed_is_refused() -> None:
    request = signed()
    with pytest.raises(UnauthenticatedError, match="x-amz-acl is not covered"):
        check(msgspec.structs.replace(request, headers=(*request.headers, ("x-amz-acl", "public-read"))))


def test_a_missing_payload_hash_is_refused() -> None:
    request = signed()
    bare_headers = tuple(h for h in request.headers if h[0] != "x-amz-content-sha256")
    with pytest.raises(UnauthenticatedError):
        check(msgspec.structs.replace(request, headers=bare_headers))


def ours(method: str, *, payload: str, tls: bool) -> Request:
    path = "/store/training/a.csv"
    keys = S3Keys(KEY_ID, SECRET)
    headers = sign(
        method=method, host=HOST, path=path, query=(), headers=[], payload=payload, keys=keys, now=NOW
    )
    return bare(method, path, headers=[("host", HOST), *headers], tls=tls)


@pytest.mark.parametrize("payload", ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])
def test_an_unsigned_body_needs_tls(payload: str) -> None:
    with pytest.raises(UnauthenticatedError, match="over TLS"):
        check(ours("PUT", payload=payload, tls=False))
    assert check(ours("PUT", payload=payload, tls=True))


def test_an_unsigned_read_needs_no_tls_and_an_unknown_payload_is_refused() -> None:
    assert check(ours("GET", payload="UNSIGNED-PAYLOAD", tls=False))
    with pytest.raises(UnauthenticatedError, match="not supported"):
        check(ours("PUT", payload="STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", tls=True))


def test_a_presigned_url_only_reads() -> None:
    with pytest.raises(UnauthenticatedError, match="only read"):
        check(signed("PUT", presign=60))


@pytest.mark.parametrize("expires", [0, 901, 604_800])
def test_a_presigned_url_is_valid_for_at_most_fifteen_minutes(expires: int) -> None:
    with pytest.raises(UnauthenticatedError, match="15 minutes"):
        check(signed(presign=expires))


def test_a_presigned_url_ends_when_it_says() -> None:
    with pytest.raises(UnauthenticatedError, match="expired"):
        check(signed(presign=60, at=NOW - timedelta(seconds=61)))
    assert check(signed(presign=60, at=NOW - timedelta(seconds=60)))


def test_a_signed_url_beside_a_header_is_two_credentials() -> None:
    with pytest.raises(InvalidRequestError, match="two credentials"):
        check(changed(signed(presign=60), authorization="Bearer x"))


def test_a_scope_for_another_service_or_date_is_refused() -> None:
    request = signed()
    header = request.header("authorization") or ""
    for old, new in (("/s3/", "/sts/"), ("20261123/", "20261122/")):
        with pytest.raises(UnauthenticatedError):
            check(changed(request, authorization=header.replace(old, new, 1)))


def test_a_write_is_accepted_once() -> None:
    replays, request = MemoryOneTime(CLOCK), signed("PUT", body=b"x")
    check(request, replays=replays)
    with pytest.raises(UnauthenticatedError, match="carried out already"):
        check(request, replays=replays)
    assert check(signed("PUT", body=b"y"), replays=replays)
    assert check(signed(), replays=replays)
    assert check(signed(), replays=replays)


def test_a_forged_write_does_not_spend_the_real_ones_signature() -> None:
    replays, request = MemoryOneTime(CLOCK), signed("PUT", body=b"x")
    with pytest.raises(UnauthenticatedError):
        check(msgspec.structs.replace(request, raw_path="/store/x"), replays=replays)
    assert check(request, replays=replays)


async def test_two_equal_calls_of_an_sdk_within_a_second_are_two_writes_and_a_replay_is_none() -> None:
    clock = ManualClock(NOW)
    replays, until = MemoryOneTime(clock), NOW.timestamp() + 300
    await spend(replays, "aa" * 32, invocation="1", until=until)
    clock.advance(0.5)
    await spend(replays, "aa" * 32, invocation="2", until=until)
    for invocation, later in (("1", 0.1), ("2", 0.4), ("3", 1.6), ("", 197.4), ("4", 101)):
        clock.advance(later)
        with pytest.raises(UnauthenticatedError):
            await spend(replays, "aa" * 32, invocation=invocation, until=until)


async def test_a_full_replay_store_refuses_and_empties_with_time() -> None:
    clock = ManualClock(NOW)
    replays, start = MemoryOneTime(clock, capacity=1), NOW.timestamp()
    await spend(replays, "aa" * 32, invocation="", until=start + 100)
    with pytest.raises(UnavailableError):
        await spend(replays, "bb" * 32, invocation="", until=start + 100)
    clock.advance(102)
    await spend(replays, "bb" * 32, invocation="", until=start + 300)
    assert len(replays) == 2


def test_a_key_obeys_its_expiry_owner_and_networks() -> None:
    with pytest.raises(UnauthenticatedError, match="expired"):
        check(signed(), Registry(expires=NOW))
    with pytest.raises(UnauthenticatedError, match="network"):
        check(signed(), Registry(networks=("10.0.0.0/8",)))
    assert check(signed(), Registry(networks=("127.0.0.0/8",)))
    with pytest.raises(UnauthenticatedError):
        check(signed(), Registry(s3_secret=None))
    inactive = Registry()
    inactive.active = False
    with pytest.raises(UnauthenticatedError, match="not active"):
        check(signed(), inactive)


def test_a_key_with_an_empty_secret_is_no_key() -> None:
    with pytest.raises(UnauthenticatedError):
        check(signed(secret=""), Registry(s3_secret=""))


def test_a_plus_in_the_query_is_a_space_to_signer_and_reader_alike() -> None:
    assert read_query("prefix=a+b%2Bc") == (("prefix", "a b+c"),)
    with pytest.raises(InvalidRequestError):
        read_query("prefix=%zz")
    with pytest.raises(InvalidRequestError):
        read_query("prefix=%ff")


def test_a_signature_is_recognised_wherever_it_stands() -> None:
    assert presented(signed())
    assert presented(signed(presign=60))
    assert not presented(bare(headers={"authorization": "Bearer x"}))


def test_keys_do_not_print_their_secret() -> None:
    assert SECRET not in repr(S3Keys(KEY_ID, SECRET))
