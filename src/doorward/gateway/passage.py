"""The way to one upstream for one request (step 8): clean headers out, no open connection left behind."""

from __future__ import annotations

from doorward.core.errors import UnavailableError
from doorward.core.wire import Headers, UpstreamAnswer, UpstreamClient, UpstreamRequest
from doorward.gateway.credentials import CredentialSwap
from doorward.gateway.headers import downward, relocated
from doorward.settings import UpstreamSettings

_REFUSED_CREDENTIAL = frozenset({401, 407})


class Passage:
    """Be the UpstreamClient a protocol file gets: usable for this request only, then closed for good.

    INVARIANT: it exists only after the verdict was recorded, so nothing of a caller's reaches an upstream
    before. The one exception is a `probe`: a question of Doorward's own, with its own credential, that
    tells whether a name exists already, or whose it is.
    """

    def __init__(
        self, client: UpstreamClient, settings: UpstreamSettings, *, caller: Headers, probe: bool = False
    ) -> None:
        """Take the shared client and the headers the caller sent; a `probe` may only look."""
        self._probe = probe
        self._client = client
        self._settings = settings
        self._swap = CredentialSwap(settings)
        self._caller = caller
        self._answers: list[UpstreamAnswer] = []
        self._closed = False

    async def send(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send with the upstream's own credential; an upstream that refuses it counts as unavailable."""
        if self._closed:
            raise UnavailableError("this request is over", code="upstream_unavailable")
        if self._probe and (request.method not in {"HEAD", "GET"} or request.body is not None):
            raise UnavailableError("a probe may only look", code="internal")
        request.headers = self._swap.apply(request.headers, caller=self._caller)
        answer = await self._client.send(request)
        self._answers.append(answer)
        if answer.status in _REFUSED_CREDENTIAL:
            # Its words may quote our credential; to the caller it is an upstream that cannot be used.
            await answer.close()
            raise UnavailableError(
                f"upstream `{self._settings.name}` does not accept Doorward's own credential",
                hint="Ask your operator to check the upstream's `credential` setting.",
                code="upstream_unavailable",
            )
        answer.headers = self._outward(answer.headers)
        return answer

    def _outward(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        outward: list[tuple[str, str]] = []
        for name, value in downward(headers):
            if name.lower() in {"location", "content-location"}:
                target = relocated(value, url=self._settings.url, name=self._settings.name)
                if target is not None:
                    outward.append((name, target))
                continue
            outward.append((name, value))
        return outward

    async def close(self) -> None:
        """Drop every connection this request still holds."""
        self._closed = True
        answers, self._answers = self._answers, []
        for answer in answers:
            await answer.close()
