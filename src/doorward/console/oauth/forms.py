"""Read a request's form in its one reading (RFC 6749, 3.2): nothing twice, nothing that is no form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl

from fastapi import Request

from doorward.console.oauth.refusal import OAuthError

MEDIA_TYPE = "application/x-www-form-urlencoded"
_MAX_BYTES = 64 * 1024
_MAX_FIELDS = 40
# The only parameters that may be given more than once (RFC 8707, 2; RFC 8693, 2.1).
_REPEATABLE = frozenset({"resource", "audience"})


class Form:
    """The parameters of one request; one sent without a value counts as left out (RFC 6749, 3.1)."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        """Keep the fields; see `read_form` and `of_pairs`."""
        self._fields = fields

    def get(self, name: str) -> str | None:
        """Return the one value of a parameter, None if it was left out."""
        values = self._fields.get(name, ())
        return values[0] if values else None

    def require(self, name: str) -> str:
        """Return the one value of a parameter; raise OAuthError without it."""
        value = self.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"the parameter {name} is missing")
        return value

    def every(self, name: str) -> tuple[str, ...]:
        """Return all values of a parameter that may be repeated."""
        return tuple(self._fields.get(name, ()))


def of_pairs(pairs: Sequence[tuple[str, str]]) -> Form:
    """Read name and value pairs; raise OAuthError for a parameter that is given twice."""
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if not value:
            continue
        values = fields.setdefault(name, [])
        if values and name not in _REPEATABLE:
            shown = name if name.isidentifier() else "one"
            raise OAuthError("invalid_request", f"the parameter {shown} is given more than once")
        values.append(value)
    return Form(fields)


async def read_form(request: Request) -> Form:
    """Read the body of a request as a form; raise OAuthError for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MEDIA_TYPE:
        raise OAuthError("invalid_request", f"send the parameters as {MEDIA_TYPE}")
    if request.url.query:
        # What is secret in a form would stand in logs; and it could be read twice.
        raise OAuthError("invalid_request", "send the parameters in the body, none in the address")
    body = await request.body()
    if len(body) > _MAX_BYTES:
        raise OAuthError("invalid_request", "the form is too long")
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise OAuthError("invalid_request", "the form cannot be read") from None
    return of_pairs(pairs)
