"""A control plane elsewhere: its address, who is signed in there, and HTTP to it.

Sign-ins lie in one private file of the user's, keyed by address. A token is continued shortly before it
ends, by one process at a time: a refresh token that is used twice ends the sign-in.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from doorward.core import errors
from doorward.identity import vault
from doorward.settings import is_loopback

CLIENT = "doorward-cli"
_TIMEOUT = 30.0
_EARLY = 30  # seconds before its end that a token is continued
_FILE, _LOCK = "sign-ins.json", "sign-ins.lock"
_OK, _MAX_ANSWER = 200, 16 * 1024 * 1024


class Held(msgspec.Struct):
    """An access token and when it ends (Unix seconds)."""

    token: str
    until: float


class Login(msgspec.Struct):
    """A sign-in at one control plane; `tokens` by the resource they are for. Nothing of it is ever shown."""

    token_endpoint: str
    revocation_endpoint: str
    gateway: str
    refresh_token: str
    tokens: dict[str, Held] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the address alone: the rest is secret."""
        return f"Login({self.token_endpoint})"


class Remote(msgspec.Struct, frozen=True):
    """A control plane's address, and the CA that vouches for it if the system's do not."""

    url: str
    ca: Path | None = None


_REMOTE: ContextVar[Remote | None] = ContextVar("remote", default=None)


def chosen() -> Remote | None:
    """Return the control plane elsewhere that this command speaks to, None for the socket."""
    return _REMOTE.get()


def choose(url: str | None, ca: Path | None) -> None:
    """Speak to a control plane elsewhere from now on; raise InvalidRequestError for no address of one."""
    if url is None:
        if ca is not None:
            raise errors.InvalidRequestError(
                "--ca goes with --url", hint="Name the control plane with --url."
            )
        return
    _REMOTE.set(Remote(checked(url), ca))


def checked(url: str) -> str:
    """Return `scheme://host[:port]`; raise InvalidRequestError for anything else, and HTTP off loopback."""
    parts = urlsplit(url)
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or plain) or parts.path.strip("/"):
        raise errors.InvalidRequestError(
            f"`{url}` is no control plane's address",
            hint="Write https://HOST[:PORT]; http:// on loopback only.",
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise errors.InvalidRequestError(f"`{url}` must have no user, query or fragment")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def exchange(
    remote: Remote,
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send one request and return status, headers and body; raise UnavailableError if nobody answers.

    Redirects are not followed: what is sent here is secret.
    """
    parts = urlsplit(url)
    connection = _connection(remote, parts.scheme, parts.netloc)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target or "/", body, dict(headers or {}))
        answer = connection.getresponse()
        content = answer.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException) as reason:
        said = getattr(reason, "strerror", None) or str(reason)
        raise errors.UnavailableError(
            f"no control plane answers at {remote.url} ({said})",
            hint="Check the address. A private CA goes with --ca FILE.",
        ) from reason
    finally:
        connection.close()
    return answer.status, answer.headers, content


def posted(remote: Remote, url: str, fields: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Send a form to an OAuth endpoint and return its answer."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    body = urlencode(fields, doseq=True).encode()
    status, _, content = exchange(remote, "POST", url, body=body, headers=headers)
    return status, document(content)


def document(content: bytes) -> dict[str, Any]:
    """Return a JSON object; an answer that is none is empty."""
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


# Sign-ins


def access_token(remote: Remote, resource: str) -> str:
    """Return a token for one resource; raise UnauthenticatedError if nobody is signed in there (any more)."""
    with _sign_ins() as logins:
        login = logins.get(remote.url)
        if login is None:
            raise _signed_out(remote, "you are not signed in there")
        held = login.tokens.get(resource)
        if held is None or held.until - _EARLY <= time.time():
            held = _continued(remote, login, resource)
        return held.token


def keep(remote: Remote, login: Login) -> None:
    """Keep a sign-in, in place of an earlier one."""
    with _sign_ins() as logins:
        logins[remote.url] = login


def forget(remote: Remote) -> Login | None:
    """Forget a sign-in and return it."""
    with _sign_ins() as logins:
        return logins.pop(remote.url, None)


def login_at(remote: Remote) -> Login | None:
    """Return the sign-in at a control plane."""
    with _sign_ins() as logins:
        return logins.get(remote.url)


def held_of(answer: Mapping[str, Any]) -> Held:
    """Return the access token of an answer."""
    return Held(str(answer["access_token"]), time.time() + float(answer.get("expires_in", 0)))


def _continued(remote: Remote, login: Login, resource: str) -> Held:
    fields = {
        "grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": CLIENT,
        "resource": resource,
    }  # fmt: skip
    status, answer = posted(remote, login.token_endpoint, fields)
    if status != _OK:
        raise _signed_out(remote, "the sign-in there is over")
    login.refresh_token = str(answer["refresh_token"])
    held = login.tokens[resource] = held_of(answer)
    return held


def _signed_out(remote: Remote, said: str) -> errors.UnauthenticatedError:
    return errors.UnauthenticatedError(said, hint=f"Sign in: doorward login {remote.url}")


@contextlib.contextmanager
def _sign_ins() -> Iterator[dict[str, Login]]:
    """Give the sign-ins to one process at a time, and write down what became of them."""
    folder = config_dir()
    vault.make_private_directory(folder)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / _FILE
        before = vault.read_private(file) if file.exists() else b"{}"
        try:
            logins = msgspec.json.decode(before, type=dict[str, Login])
        except msgspec.MsgspecError as reason:
            raise errors.InvalidConfigError(
                f"{file} cannot be read", hint="Remove it and sign in again."
            ) from reason
        try:
            yield logins
        finally:
            after = msgspec.json.encode(logins)
            if after != before:
                vault.replace(file, after)
    finally:
        os.close(lock)


def config_dir() -> Path:
    """Return the user's own directory for Doorward."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".config") / "doorward"


def _connection(remote: Remote, scheme: str, netloc: str) -> http.client.HTTPConnection:
    if scheme == "https":
        try:
            context = ssl.create_default_context(cafile=None if remote.ca is None else str(remote.ca))
        except OSError as reason:
            raise errors.InvalidConfigError(f"--ca {remote.ca} cannot be used: {reason}") from reason
        return http.client.HTTPSConnection(netloc, timeout=_TIMEOUT, context=context)
    return http.client.HTTPConnection(netloc, timeout=_TIMEOUT)
