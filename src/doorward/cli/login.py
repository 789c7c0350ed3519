"""`doorward login` and `logout`: act at a control plane elsewhere as the person you are."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import secrets
import time
import webbrowser
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import typer

from doorward.cli import remote
from doorward.cli.output import JsonFlag, emit_json, guarded, say
from doorward.cli.remote import CLIENT, Login, Remote
from doorward.core import errors

DEFAULT = "http://127.0.0.1:8641"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_OK = 200
_WAIT = 300.0
_DONE = b"Signed in. You can close this page and go back to the terminal.\n"

UrlArgument = Annotated[
    str, typer.Argument(envvar="DOORWARD_URL", help="The control plane: https://doorward.example.")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", envvar="DOORWARD_CA", help="The CA that vouches for it (PEM).")
]


def register(app: typer.Typer) -> None:
    """Add `login` and `logout`."""
    app.command("login")(guarded(login))
    app.command("logout")(guarded(logout))


def login(
    url: UrlArgument = DEFAULT,
    *,
    browser: Annotated[
        bool, typer.Option("--browser", help="Open a browser on this machine instead of showing a code.")
    ] = False,
    ca: CaOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Sign in at a control plane; commands then reach it with `--url` or DOORWARD_URL."""
    there = Remote(remote.checked(url), ca)
    told = _metadata(there)
    answer = _by_browser(there, told) if browser else _by_code(there, told)
    gateway = next((one for one in told["protected_resources"] if one != there.url), there.url)
    remote.keep(
        there,
        Login(
            token_endpoint=told["token_endpoint"],
            revocation_endpoint=told["revocation_endpoint"],
            gateway=gateway,
            refresh_token=str(answer["refresh_token"]),
            tokens={there.url: remote.held_of(answer)},
        ),
    )
    if as_json:
        emit_json({"url": there.url, "gateway": gateway})
        return
    say(f"Signed in at {there.url}. Commands reach it with --url {there.url}, or with DOORWARD_URL set.")


def logout(url: UrlArgument = DEFAULT, *, ca: CaOption = None, as_json: JsonFlag = False) -> None:
    """End the sign-in at a control plane, and every token that came of it."""
    there = Remote(remote.checked(url), ca)
    gone = remote.forget(there)
    if gone is None:
        raise errors.NotFoundError(f"you are not signed in at {there.url}", hint="Nothing is to be done.")
    fields = {"token": gone.refresh_token, "client_id": CLIENT}
    status, _ = remote.posted(there, gone.revocation_endpoint, fields)
    if status != _OK:
        raise errors.UnavailableError(
            f"forgotten here, but {there.url} did not end the sign-in ({status})",
            hint="It ends by itself within 12 hours; an administrator can sign you out.",
        )
    if as_json:
        emit_json({"url": there.url, "signed_out": True})
        return
    say(f"Signed out at {there.url}.")


def _metadata(there: Remote) -> dict[str, Any]:
    """Return the issuer's metadata (RFC 8414, 3.3): about exactly the issuer we asked, and only its own."""
    status, _, content = remote.exchange(there, "GET", f"{there.url}/.well-known/oauth-authorization-server")
    told = remote.document(content)
    if status != _OK or told.get("issuer") != there.url:
        named = told.get("issuer")
        hint = (
            f"It calls itself {named}: doorward login {named}"
            if isinstance(named, str)
            else "Check the address."
        )
        raise errors.UnavailableError(f"{there.url} is not the name of a token issuer", hint=hint)
    ours = ("token_endpoint", "revocation_endpoint", "device_authorization_endpoint")
    if not all(str(told.get(name, "")).startswith(f"{there.url}/") for name in ours):
        raise errors.UnavailableError(f"{there.url} names endpoints that are not its own")
    return told


def _by_code(there: Remote, told: dict[str, Any]) -> dict[str, Any]:
    """Show a code that the person types in on any machine (RFC 8628)."""
    asked = {"client_id": CLIENT, "resource": told["protected_resources"]}
    status, device = remote.posted(there, told["device_authorization_endpoint"], asked)
    if status != _OK:
        raise _refused(device)
    say(f"Open {device['verification_uri']} on any machine and enter the code {device['user_code']}.")
    fields = {
        "grant_type": _DEVICE, "device_code": device["device_code"], "client_id": CLIENT,
        "resource": there.url,
    }  # fmt: skip
    interval, deadline = float(device["interval"]), time.monotonic() + float(device["expires_in"])
    while time.monotonic() < deadline:
        time.sleep(interval)
        status, answer = remote.posted(there, told["token_endpoint"], fields)
        if status == _OK:
            return answer
        match answer.get("error"):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += 5
            case _:
                raise _refused(answer)
    raise errors.UnauthenticatedError("nobody entered the code in time", hint="Run the command again.")


def _by_browser(there: Remote, told: dict[str, Any]) -> dict[str, Any]:
    """Let a browser on this machine bring the code back to a port of ours (OAuth 2.1; RFC 8252, 7.3)."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with _Callback() as waiting:
        asked = {
            "response_type": "code", "client_id": CLIENT, "redirect_uri": waiting.address, "state": state,
            "code_challenge": challenge, "code_challenge_method": "S256",
            "resource": told["protected_resources"],
        }  # fmt: skip
        address = f"{told['authorization_endpoint']}?{urlencode(asked, doseq=True)}"
        say(f"Open this address if no browser does:\n{address}")
        webbrowser.open(address)
        answer = waiting.answer()
    # RFC 9207: it is the issuer's answer to our question, or it is nothing.
    if not hmac.compare_digest(answer.get("state", ""), state) or answer.get("iss") != there.url:
        raise errors.UnauthenticatedError(
            "the answer is not for this question", hint="Run the command again."
        )
    if "code" not in answer:
        raise _refused(answer)
    fields = {
        "grant_type": "authorization_code", "code": answer["code"], "redirect_uri": waiting.address,
        "client_id": CLIENT, "code_verifier": verifier, "resource": there.url,
    }  # fmt: skip
    status, tokens = remote.posted(there, told["token_endpoint"], fields)
    if status != _OK:
        raise _refused(tokens)
    return tokens


def _refused(answer: dict[str, Any]) -> errors.UnauthenticatedError:
    said = answer.get("error_description") or answer.get("error") or "the sign-in was refused"
    return errors.UnauthenticatedError(str(said), hint="Run the command again.")


class _Callback(http.server.HTTPServer):
    """Wait on a port of this machine for the one answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.timeout = 1.0
        self.found: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/callback"

    def answer(self) -> dict[str, str]:
        deadline = time.monotonic() + _WAIT
        while not self.found and time.monotonic() < deadline:
            self.handle_request()
        if not self.found:
            raise errors.UnauthenticatedError("nobody answered in the browser in time")
        return self.found


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 5.0

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        given = {name: values[0] for name, values in parse_qs(parts.query).items() if len(values) == 1}
        fits = parts.path == "/callback" and ("code" in given or "error" in given)
        if fits and isinstance(self.server, _Callback):
            self.server.found = given
        body = _DONE if fits else b"This is not the answer that was waited for.\n"
        self.send_response(_OK if fits else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the address holds the code."""
