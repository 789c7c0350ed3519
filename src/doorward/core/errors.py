"""One base error; every message says what happened, the hint says what to do next."""

from __future__ import annotations


class DoorwardError(Exception):
    """Base of every error Doorward raises on purpose. Never thrown directly."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        """Keep the sentence for people and the code for programs."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        """Join message and hint on two lines."""
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InvalidConfigError(DoorwardError):
    """A configuration, org file or settings value cannot be used (exit 3)."""

    code = "invalid_config"


class InvalidPolicyError(DoorwardError):
    """A policy, schema or annotation is refused at admission (exit 3)."""

    code = "invalid_policy"


class InvalidRequestError(DoorwardError):
    """A request is malformed or can be read in two ways (HTTP 400)."""

    code = "invalid_request"


class PayloadTooLargeError(InvalidRequestError):
    """A request body or header section is over its bound (HTTP 413)."""

    code = "payload_too_large"


class UnsupportedMediaError(InvalidRequestError):
    """A body's type or encoding is not one Doorward reads (HTTP 415)."""

    code = "unsupported_media_type"


class UnauthenticatedError(DoorwardError):
    """No credential, or one that does not verify (HTTP 401).

    `challenge` is the WWW-Authenticate value, `headers` what the answer carries beside it.
    `reason` is for the record only, never for the caller.
    """

    code = "unauthenticated"

    def __init__(  # noqa: PLR0913 -- what an answer and its record say, by name
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        challenge: str = 'Bearer realm="doorward"',
        reason: str = "",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Keep the challenge for the answer and the reason for the record."""
        super().__init__(message, hint=hint, code=code)
        self.challenge = challenge
        self.headers = headers
        self.reason = reason


class DeniedError(DoorwardError):
    """The caller may not do this (HTTP 403, exit 1)."""

    code = "denied"


class NotFoundError(DoorwardError):
    """The named thing is not known (HTTP 404)."""

    code = "not_found"


class ConflictError(DoorwardError):
    """The change contradicts the state it was made against (HTTP 409)."""

    code = "conflict"


class PreconditionFailedError(ConflictError):
    """The state is not the one the change was asked against (HTTP 412, RFC 9110 13.1.1)."""

    code = "precondition_failed"


class UnavailableError(DoorwardError):
    """Something this step needs is gone, so the step is refused (HTTP 503, exit 8)."""

    code = "unavailable"


class BehindError(UnavailableError):
    """What is decided on here is older than the request demands (HTTP 503, with Retry-After)."""

    retry_after = 1

    def __init__(self, demand: object) -> None:
        """Name what was demanded."""
        super().__init__(
            f"this request demands a decision on {demand}, which has not arrived here",
            hint="Nothing older was decided on. Send it again in a second; if it stays so, see /readyz.",
        )


class AuditUnavailableError(UnavailableError):
    """A record could not be made durable: nothing may be allowed (HTTP 503)."""

    code = "audit_unavailable"


class AuditBrokenError(DoorwardError):
    """The log was changed, reordered or cut (exit 7)."""

    code = "audit_broken"
