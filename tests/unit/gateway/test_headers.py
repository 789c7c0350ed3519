from __future__ import annotations

import pytest

from doorward.core.errors import UnavailableError
from doorward.core.wire import UpstreamRequest
from doorward.gateway.credentials import CredentialSwap
from doorward.gateway.headers import downward, relocated, upward
from doorward.gateway.passage import Passage
from doorward.settings import HeaderCredential, S3Credential, S3CredentialHolder, UpstreamSettings


@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For", "X-FORWARDED-HOST", "Forwarded", "X-Real-IP", "X-User", "x-user-role",
        "X-Remote-Groups",
        "Remote-User", "X-Original-URL", "X-Rewrite-URL", "X_User", "Content_Length", "Authorization",
        "x-api-key",
        "Cookie", "DPoP", "Doorward-Purpose", "Transfer-Encoding", "TE", "Trailer", "Upgrade",
        "Proxy-Authorization",
        "Expect", "Host", "X-HTTP-Method-Override", "X-Auth-Request-Email", "X-Amz-Security-Token",
        "Bad Name",
    ],
)  # fmt: skip
def test_it_never_goes_up(name):
    assert upward([(name, "v"), ("Accept", "a")]) == [("Accept", "a")]


def test_metadata_of_objects_keeps_its_names():
    assert upward([("x-amz-meta-a_b", "1")]) == [("x-amz-meta-a_b", "1")]


def test_what_connection_names_is_a_hop_header():
    assert upward([("Connection", "close, X-Hop"), ("X-Hop", "1"), ("X-Stay", "1")]) == [("X-Stay", "1")]


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0b", "a\x7fb", "a\udcffb"])
def test_values_that_would_split_go_nowhere(value):
    assert upward([("X-A", value)]) == []
    assert downward([("X-A", value)]) == []


@pytest.mark.parametrize(
    ("location", "outside"),
    [
        ("/api/x?y=1", "/llm/x?y=1"), ("http://127.0.0.1:9/api/x", "/llm/x"), ("http://127.0.0.1:9/other",
        None),
        ("http://169.254.169.254/", None), ("//evil/x", None), ("/other", None),
        ("https://127.0.0.1:9/api", None),
        ("x", None), ("http://127.0.0.1:9/api", "/llm"),
    ],
)  # fmt: skip
def test_a_redirect_never_names_what_is_behind_the_door(location, outside):
    assert relocated(location, url="http://127.0.0.1:9/api", name="llm") == outside


def settings(**fields):
    return UpstreamSettings(name="llm", kind="http", url="http://127.0.0.1:9", **fields)


def test_the_upstreams_credential_replaces_whatever_was_there():
    own = HeaderCredential.model_construct(header="X-Token", value="own")
    sent = CredentialSwap(settings(credential=own)).apply(
        [("authorization", "Bearer dw_x"), ("x-token", "forged"), ("accept", "a")], caller=()
    )
    assert sent == [("accept", "a"), ("X-Token", "own")]


def test_without_a_credential_the_callers_is_gone_all_the_same():
    assert CredentialSwap(settings()).apply([("authorization", "Bearer dw_x")], caller=()) == []


def test_a_signature_stays_but_never_the_callers_own():
    keys = S3Credential.model_construct(access_key_id="k", secret_access_key="s", region="r")
    swap = CredentialSwap(settings(credential=S3CredentialHolder.model_construct(s3=keys)))
    ours, theirs = "AWS4-HMAC-SHA256 ours", "AWS4-HMAC-SHA256 theirs"
    assert swap.apply([("Authorization", ours)], caller=(("authorization", theirs),)) == [
        ("Authorization", ours)
    ]
    assert swap.apply([("Authorization", theirs)], caller=(("authorization", theirs),)) == []


def test_no_secret_shows_in_repr():
    own = HeaderCredential.model_construct(header="Authorization", value="Bearer top-secret")
    assert "top-secret" not in repr(vars(CredentialSwap(settings(credential=own))))


class Refusing:
    async def send(self, _request):
        raise AssertionError("reached")


@pytest.mark.parametrize(
    ("method", "body"),
    [("PUT", None), ("PATCH", None), ("POST", None), ("DELETE", None), ("GET", b"x"), ("HEAD", b"x")],
)
async def test_a_probe_may_only_look(method, body):
    passage = Passage(Refusing(), settings(), caller=(), probe=True)
    with pytest.raises(UnavailableError):
        await passage.send(UpstreamRequest(method=method, target="/", headers=[], body=body))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_probe_may_ask_whose_a_name_is(method):
    passage = Passage(Refusing(), settings(), caller=(), probe=True)
    with pytest.raises(AssertionError, match="reached"):
        await passage.send(UpstreamRequest(method=method, target="/", headers=[], body=None))


async def test_a_passage_that_is_over_sends_nothing():
    passage = Passage(Refusing(), settings(), caller=())
    await passage.close()
    with pytest.raises(UnavailableError):
        await passage.send(UpstreamRequest(method="GET", target="/", headers=[], body=None))
