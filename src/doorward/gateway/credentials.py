"""Swap the caller's credential for the upstream's own, just before the bytes leave."""

from __future__ import annotations

from doorward.core.secret import Secret
from doorward.core.wire import Headers
from doorward.gateway.headers import CREDENTIALS, upward
from doorward.settings import HeaderCredential, S3CredentialHolder, UpstreamSettings


class CredentialSwap:
    """Clean outgoing headers and put one upstream's credential on them.

    Every request to an upstream passes here, whatever the protocol file did before, so a caller's
    credential cannot leave by a forgotten path.
    """

    def __init__(self, settings: UpstreamSettings) -> None:
        """Take the upstream's settings; secret references are resolved already."""
        self._header: tuple[str, Secret[str]] | None = None
        if isinstance(settings.credential, HeaderCredential):
            self._header = (settings.credential.header, Secret(settings.credential.value))
        # With S3 keys the protocol file signs: the signature is the one header it may set itself.
        self._signs = isinstance(settings.credential, S3CredentialHolder)

    def apply(self, headers: list[tuple[str, str]], *, caller: Headers) -> list[tuple[str, str]]:
        """Return the headers that go out; `caller` are the ones that came in.

        A signature set by the protocol file stays unless it is the caller's own value.
        """
        outgoing = upward(headers)
        if self._signs:
            received = {value for name, value in caller if name in CREDENTIALS}
            outgoing += [
                (name, value)
                for name, value in headers
                if name.lower() == "authorization" and value not in received
            ]
        if self._header is not None:
            name, secret = self._header
            outgoing = [(key, value) for key, value in outgoing if key.lower() != name.lower()]
            outgoing.append((name, secret.reveal()))
        return outgoing
