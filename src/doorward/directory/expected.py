"""Make a change only if nothing changed since the one who asks for it looked."""

from __future__ import annotations

from contextvars import ContextVar

from doorward.core.errors import PreconditionFailedError

# The version a change was asked against. Carried beside the call, not through it: every road to the
# store ends in one commit, and only there, under its lock, can the two versions be compared for good.
_expected: ContextVar[frozenset[int] | None] = ContextVar("expected_versions", default=None)


def expect(versions: frozenset[int] | None) -> None:
    """Let changes of the current task or thread commit only onto one of these versions."""
    _expected.set(versions)


def require_expected(version: int) -> None:
    """Raise PreconditionFailedError if a change was asked against another version than this."""
    versions = _expected.get()
    if versions is not None and version not in versions:
        raise PreconditionFailedError(
            f"the directory is at version {version}, not the one this change was made against",
            hint="Read it again, see whether the change still makes sense, and send the new ETag.",
        )
