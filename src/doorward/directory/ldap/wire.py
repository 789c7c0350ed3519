"""LDAP version 3 (RFC 4511) as a client that only reads: TLS, one bind, paged searches.

Filters are trees, never text put together, so nothing that a directory holds can change a question.
Referrals are not followed. A message over the bound, or an answer out of turn, ends the connection.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import msgspec
import sansldap
from sansldap import (
    BindResponse,
    ExtendedResponse,
    LDAPClient,
    LDAPFilter,
    LDAPResultCode,
    PagedResultControl,
    SearchResultDone,
    SearchResultEntry,
    SearchScope,
)

from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.secret import Secret

PAGE: Final = 500
MOST_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_PORTS: Final = {"ldap": 389, "ldaps": 636}
_START_TLS: Final = "1.3.6.1.4.1.1466.20037"
_LONG_FORM: Final = 0x80
_MOST_LENGTH_BYTES: Final = 4


class Entry(msgspec.Struct, frozen=True):
    """One entry: its name and its attributes by lower-case name, values as sent."""

    dn: str
    attributes: Mapping[str, tuple[bytes, ...]]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an attribute's values that are text."""
        found = []
        for value in self.attributes.get(name.lower(), ()):
            try:
                found.append(value.decode("utf-8"))
            except UnicodeDecodeError:
                continue
        return tuple(found)

    def text(self, name: str) -> str:
        """Return the first value of an attribute, empty if there is none."""
        return next(iter(self.texts(name)), "")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom to connect. `ca` is a file; `password` never shows itself."""

    url: str
    bind_dn: str = ""
    password: Secret[str] | None = None
    ca: str | None = None
    start_tls: bool = False
    timeout: float = 10.0


class Connection:
    """One bound connection; use as a context manager. Every fault is UnavailableError."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Connect, make it private, and bind; raise UnavailableError or InvalidConfigError."""
        self._endpoint = endpoint
        self._client = LDAPClient()
        try:
            self._socket = self._connected()
            if endpoint.start_tls:
                self._start_tls()
            self._bind()
        except (OSError, sansldap.LDAPError) as reason:
            raise UnavailableError(
                f"the directory at {endpoint.url} cannot be reached: {reason}",
                hint="Check its address, its certificate and the network.",
            ) from reason

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Hang up; closing twice is no error."""
        self._socket.close()

    def search(
        self,
        base: str,
        wanted: LDAPFilter,
        attributes: Sequence[str],
        *,
        controls: Sequence[sansldap.LDAPControl] = (),
    ) -> Iterator[Entry]:
        """Yield every entry below a base that matches, page by page (RFC 2696).

        Raises UnavailableError unless the server says that this was all of them.
        """
        cookie = b""
        while True:
            paged = PagedResultControl(critical=True, size=PAGE, cookie=cookie)
            done = yield from self._asked(base, SearchScope.SUBTREE, wanted, attributes, [paged, *controls])
            pages = [control for control in done.controls if isinstance(control, PagedResultControl)]
            cookie = pages[0].cookie if pages else b""
            if not cookie:
                return

    def read(self, dn: str, attributes: Sequence[str]) -> Entry | None:
        """Return one entry (the root DSE for an empty name), None if it is not there."""
        present = sansldap.FilterPresent("objectClass")
        try:
            found = list(self._asked(dn, SearchScope.BASE, present, attributes, []))
        except _NoSuchObjectError:
            return None
        return found[0] if found else None

    # Inside

    def _asked(
        self,
        base: str,
        scope: SearchScope,
        wanted: LDAPFilter,
        attributes: Sequence[str],
        controls: list[sansldap.LDAPControl],
    ) -> Any:
        try:
            number = self._client.search_request(
                base, scope, filter=wanted, attributes=list(attributes), controls=controls
            )
            self._flush()
            while True:
                message = self._message(number)
                if isinstance(message, SearchResultEntry):
                    yield Entry(message.object_name, _attributes(message))
                elif isinstance(message, SearchResultDone):
                    _require_success(message.result, f"a search below `{base}`")
                    return message
        except (OSError, sansldap.LDAPError) as reason:
            raise UnavailableError(f"the directory broke off: {reason}") from reason

    def _connected(self) -> socket.socket:
        endpoint = self._endpoint
        parts = urlsplit(endpoint.url)
        if parts.scheme == "ldapi":
            local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            local.settimeout(endpoint.timeout)
            local.connect(unquote(parts.netloc or parts.path))
            return local
        address = (str(parts.hostname), parts.port or _PORTS[parts.scheme])
        plain = socket.create_connection(address, endpoint.timeout)
        return self._wrapped(plain) if parts.scheme == "ldaps" else plain

    def _wrapped(self, plain: socket.socket) -> ssl.SSLSocket:
        try:
            context = ssl.create_default_context(cafile=self._endpoint.ca)
        except OSError as reason:
            raise InvalidConfigError(
                f"the authority {self._endpoint.ca} cannot be read: {reason}"
            ) from reason
        return context.wrap_socket(plain, server_hostname=urlsplit(self._endpoint.url).hostname)

    def _start_tls(self) -> None:
        number = self._client.extended_request(_START_TLS)
        self._flush()
        message = self._message(number)
        if not isinstance(message, ExtendedResponse):
            raise sansldap.LDAPError("StartTLS was not answered")
        _require_success(message.result, "StartTLS")
        self._socket = self._wrapped(self._socket)

    def _bind(self) -> None:
        password = self._endpoint.password.reveal() if self._endpoint.password is not None else ""
        if self._endpoint.bind_dn and not password:
            # A server takes a name without a password for nobody at all (RFC 4513, 5.1.2).
            raise InvalidConfigError(
                f"no password to bind as {self._endpoint.bind_dn}", hint="Give it: ${NAME} or file:PATH."
            )
        if self._endpoint.bind_dn:
            number = self._client.bind_simple(self._endpoint.bind_dn, password)
        else:
            number = self._client.bind_sasl("EXTERNAL")
        self._flush()
        message = self._message(number)
        if not isinstance(message, BindResponse):
            raise sansldap.LDAPError("the bind was not answered")
        _require_success(message.result, f"binding as `{self._endpoint.bind_dn or 'EXTERNAL'}`")

    def _flush(self) -> None:
        self._socket.sendall(self._client.data_to_send())

    def _message(self, number: int) -> sansldap.LDAPMessage:
        """Return the next message, which must answer request `number`."""
        messages = self._client.receive(self._frame())
        if len(messages) != 1 or messages[0].message_id != number:
            raise sansldap.LDAPError("the server answered out of turn")
        return messages[0]

    def _frame(self) -> bytes:
        """Read exactly one BER element: what a message claims to be is bounded before it is read."""
        head = self._exactly(2)
        length = head[1]
        if length & _LONG_FORM:
            count = length & ~_LONG_FORM
            if not 0 < count <= _MOST_LENGTH_BYTES:
                raise sansldap.LDAPError("a message without a definite length")
            more = self._exactly(count)
            head, length = head + more, int.from_bytes(more)
        if length > MOST_BYTES:
            raise sansldap.LDAPError(f"a message of {length:,} bytes is over the bound")
        return head + self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            chunk = self._socket.recv(min(_CHUNK, count - len(found)))
            if not chunk:
                raise ConnectionError("the server closed the connection")
            found += chunk
        return bytes(found)


class _NoSuchObjectError(UnavailableError):
    """There is no entry of this name."""


def _attributes(message: SearchResultEntry) -> dict[str, tuple[bytes, ...]]:
    return {attribute.name.lower(): tuple(attribute.values) for attribute in message.attributes}


def _require_success(result: sansldap.LDAPResult, what: str) -> None:
    """Raise UnavailableError for anything but success: a partial answer is no answer."""
    code = result.result_code
    if code == LDAPResultCode.SUCCESS:
        return
    kind = _NoSuchObjectError if code == LDAPResultCode.NO_SUCH_OBJECT else UnavailableError
    name = getattr(code, "name", str(code)).lower()
    raise kind(
        f"{what}: the directory said {name} {result.diagnostics_message[:200]}".strip(),
        hint="Look at the directory's own log.",
    )
