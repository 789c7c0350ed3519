"""What passes between caller and upstream besides the body: few headers, by name, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from doorward.core.errors import UnavailableError
from doorward.core.wire import Answer, Request, UpstreamAnswer, UpstreamClient, UpstreamRequest
from doorward.gateway.adapter import Permit, Refusal
from doorward.http1.reply import Reply
from doorward.settings import UpstreamSettings

# The trace goes on through the gate (W3C Trace Context).
_REQUEST_HEADERS = frozenset({"accept", "content-type", "user-agent", "traceparent", "tracestate"})
_ANSWER_HEADERS = frozenset(
    {"content-type", "content-length", "content-disposition", "etag", "last-modified", "cache-control"}
    | {"retry-after", "x-request-id", "openai-processing-ms", "openai-version"}
)
_ANSWER_PREFIXES = ("x-ratelimit-",)
_MAX_LIST_BYTES = 32 * 1024 * 1024


def request_headers(request: Request) -> list[tuple[str, str]]:
    """Return the few headers of the caller that an upstream needs; the credential is put on later.

    Headers that choose a model, a workspace, an organisation or a host elsewhere never pass.
    """
    allowed = [(name, value) for name, value in request.headers if name in _REQUEST_HEADERS]
    # Answers are filtered, counted and masked as text: a coded one could not be.
    return [*allowed, ("accept-encoding", "identity")]


def target_of(request: Request, settings: UpstreamSettings) -> str:
    """Return what follows the upstream's name in the raw path, with the raw query."""
    target = request.raw_path.removeprefix(f"/{settings.name}")
    return f"{target}?{request.raw_query}" if request.raw_query else target


def answer_headers(headers: Iterable[tuple[str, str]], *, resized: bool = False) -> list[tuple[str, str]]:
    """Return the headers of an upstream's answer that may leave; `resized` drops those of the old bytes."""
    stale = {"content-length", "etag", "last-modified"} if resized else set()
    return [
        (name, value)
        for name, value in headers
        if (name.lower() in _ANSWER_HEADERS or name.lower().startswith(_ANSWER_PREFIXES))
        and name.lower() not in stale
        and value.isprintable()
    ]


async def send(
    permit: Permit, upstream: UpstreamClient, settings: UpstreamSettings, *, target: str | None = None
) -> UpstreamAnswer:
    """Send the authorised bytes; refuse the answers that must never reach a caller.

    `target` replaces the caller's own path and query where an adapter asks in its own words.
    Raise UnavailableError for a redirect, a coded body, or an upstream that rejects our credential.
    """
    request = permit.request
    sends_body = request.method not in {"GET", "HEAD"}
    answer = await upstream.send(
        UpstreamRequest(
            method=request.method,
            target=target_of(request, settings) if target is None else target,
            headers=request_headers(request),
            body=permit.body if sends_body else None,
            content_length=len(permit.body) if sends_body else None,
        )
    )
    return await checked(answer, settings)


async def checked(answer: UpstreamAnswer, settings: UpstreamSettings) -> UpstreamAnswer:
    """Return the answer if it may be read further; close it and raise UnavailableError otherwise."""
    coding = next((value for name, value in answer.headers if name.lower() == "content-encoding"), "identity")
    problem = ""
    if answer.status in {401, 407}:
        # Its words may quote our credential; to the caller it is an upstream that cannot be used.
        problem = "does not accept the gateway's credential"
    elif 300 <= answer.status < 400:  # noqa: PLR2004 -- the redirection class
        problem = "answered with a redirect, which is not followed"
    elif coding.lower() != "identity":
        problem = f"answered in the coding `{coding}`, which was not asked for"
    if problem:
        await answer.close()
        raise UnavailableError(
            f"the upstream `{settings.name}` {problem}",
            hint="Ask the operator to check the upstream.",
            code="upstream_unavailable",
        )
    return answer


async def whole(answer: UpstreamAnswer, settings: UpstreamSettings) -> bytes:
    """Read an answer that must be seen whole; raise UnavailableError beyond 32 MiB."""
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in answer.chunks():
            size += len(chunk)
            if size > _MAX_LIST_BYTES:
                raise UnavailableError(
                    f"the list of `{settings.name}` is larger than {_MAX_LIST_BYTES} bytes",
                    hint="Ask for a smaller page or a narrower filter.",
                    code="upstream_unavailable",
                )
            parts.append(chunk)
    finally:
        await answer.close()
    return b"".join(parts)


def passed(
    answer: UpstreamAnswer,
    *,
    watch: Callable[[bytes], None] | None = None,
    finished: Callable[[], None] | None = None,
) -> Answer:
    """Pass an answer through as bytes; `watch` sees each chunk, `finished` is called after the last."""
    here = arrived_whole(answer)
    if here is None:
        body = _chunks(answer, watch=watch, finished=finished)
        return Answer(status=answer.status, headers=answer_headers(answer.headers), body=body)
    if watch is not None:
        watch(here)
    if finished is not None:
        finished()
    return Answer(status=answer.status, headers=answer_headers(answer.headers), body=here)


def arrived_whole(answer: UpstreamAnswer) -> bytes | None:
    """Return the whole body of an answer if it came together with its head, else None."""
    if isinstance(answer, Reply) and answer.complete:
        return answer.arrived_whole()
    return None


async def _chunks(
    answer: UpstreamAnswer,
    *,
    watch: Callable[[bytes], None] | None,
    finished: Callable[[], None] | None,
) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.chunks():
            if watch is not None:
                watch(chunk)
            yield chunk
    finally:
        await answer.close()
        if finished is not None:
            finished()


def refusal_headers(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the headers that a refusal adds: the challenge of a 401, the wait of a 429 or 503."""
    headers = [("content-type", "application/json")]
    if refusal.challenge:
        headers.append(("www-authenticate", refusal.challenge))
    if refusal.retry_after is not None:
        headers.append(("retry-after", str(refusal.retry_after)))
    return headers
