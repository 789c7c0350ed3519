"""Which client asks: the CLI, which has no secret, or a service or agent of the directory with its own key.

Nobody registers here: a client is known because the directory knows it. Its secret is an API key of its own
(`client_secret_basic`), or it signs with a key registered for it (`private_key_jwt`).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from doorward.console.oauth.refusal import OAuthError, invalid_client
from doorward.identity import api_keys
from doorward.identity.client_authentication import ASSERTION_TYPE
from doorward.identity.issuer import CLIENT as CLI
from doorward.identity.strict_jose import TokenFaultError, decode_segment

if TYPE_CHECKING:
    from doorward.console.oauth.forms import Form
    from doorward.console.oauth.server import AuthorizationServer
    from doorward.core.identity import KeyRecord
    from doorward.core.model import EntityUid

METHODS = ("client_secret_basic", "private_key_jwt", "none")
NOBODY = ""
_KINDS = frozenset({"Service", "Agent"})
_BASIC = "basic "


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks. Without a key it is the CLI, which anybody can claim to be: it proves nothing."""

    id: str
    key: KeyRecord | None = None

    @property
    def principal(self) -> EntityUid | None:
        """Return the service or agent, None for the CLI."""
        return None if self.key is None else self.key.subject

    @property
    def name(self) -> str:
        """Return what records call it."""
        return self.id if self.key is None else str(self.key.subject)


def name_of(subject: EntityUid) -> str:
    """Return a service's or agent's client id: `service/etl`, `agent/scout`."""
    return f"{subject.kind.lower()}/{subject.id}"


async def authenticated(
    server: AuthorizationServer, form: Form, *, authorization: Sequence[str], ip: str
) -> Client:
    """Return the client; raise OAuthError unless it shows exactly one thing that verifies.

    `authorization` are the Authorization headers of the request.
    """
    assertion, secret = form.get("client_assertion"), form.get("client_secret")
    given = len(authorization) + (assertion is not None) + (secret is not None)
    if given > 1:
        raise OAuthError("invalid_request", "more than one way to authenticate is used")
    if secret is not None:
        raise invalid_client("secret_in_the_form")
    if authorization:
        return _by_secret(server, form, authorization[0], ip)
    if assertion is not None:
        return await _by_assertion(server, form, assertion, ip)
    if form.get("client_id") == CLI:
        return Client(CLI)
    # An exchange may show who acts by its `actor_token` alone; nothing else is open to nobody.
    if form.get("client_id") is None and form.get("actor_token") is not None:
        return Client(NOBODY)
    raise invalid_client("no_authentication")


def _by_secret(server: AuthorizationServer, form: Form, header: str, ip: str) -> Client:
    name, secret = _basic(header)
    digest = api_keys.digest_of(secret)
    record = None if digest is None else server.snapshot.key_by_hash(digest)
    if record is None or record.public_key is not None:
        raise invalid_client("key_unknown", by_header=True)
    _require_usable(server, record, ip, by_header=True)
    # The key says who it is; the name must only agree with it.
    if not _is_named(record.subject, name) or form.get("client_id") not in {None, name}:
        raise invalid_client("client_id_of_another", by_header=True)
    return Client(name_of(record.subject), record)


async def _by_assertion(server: AuthorizationServer, form: Form, assertion: str, ip: str) -> Client:
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise OAuthError("invalid_request", "client_assertion_type is missing or not one we know")

    def candidates(name: str, kid: str | None) -> Iterable[KeyRecord]:
        return (record for record in _registered(server, kid, name) if _is_named(record.subject, name))

    try:
        name, record = await server.assertions.verify(assertion, candidates)
    except TokenFaultError as fault:
        raise invalid_client(str(fault)) from None
    if form.get("client_id") not in {None, name}:
        raise invalid_client("client_id_of_another")
    _require_usable(server, record, ip)
    return Client(name_of(record.subject), record)


def _registered(server: AuthorizationServer, kid: str | None, name: str) -> Iterable[KeyRecord]:
    """Return keys by what an assertion's header calls one: our id of it, or its thumbprint (RFC 7638)."""
    snapshot = server.snapshot
    if kid is None:
        return [key for key in snapshot.keys.values() if key.public_key and _is_named(key.subject, name)]
    try:
        by_thumbprint = snapshot.key_by_hash(decode_segment(kid).hex())
    except TokenFaultError:
        by_thumbprint = None
    found = by_thumbprint or snapshot.key_by_id(kid)
    return () if found is None else (found,)


def _require_usable(
    server: AuthorizationServer, record: KeyRecord, ip: str, *, by_header: bool = False
) -> None:
    fault = api_keys.fault_of(record, ip=ip, now=server.clock.now(), registry=server.snapshot)
    if fault is not None or record.subject.kind not in _KINDS:
        raise invalid_client(fault or "key_of_a_person", by_header=by_header)


def _is_named(subject: EntityUid, name: str) -> bool:
    """Return whether a client id means a subject: `service/etl`, or the bare or whole name of it."""
    if subject.kind not in _KINDS:
        return False
    names = (name_of(subject), subject.id, str(subject))
    return any(hmac.compare_digest(known.encode(), name.encode()) for known in names)


def _basic(header: str) -> tuple[str, str]:
    """Return name and secret of HTTP Basic, each form-encoded (RFC 6749, 2.3.1)."""
    if not header.lower().startswith(_BASIC):
        raise invalid_client("scheme_not_basic", by_header=True)
    try:
        pair = base64.b64decode(header[len(_BASIC) :].strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise invalid_client("basic_malformed", by_header=True) from None
    name, separator, secret = pair.partition(":")
    if not separator:
        raise invalid_client("basic_malformed", by_header=True)
    return unquote_plus(name), unquote_plus(secret)
