"""Secrets that never print themselves."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T", str, bytes)


class Secret(Generic[T]):
    """Hold a secret; only `reveal` gives it back, never `repr`, `str` or a log line."""

    __slots__ = ("_value",)
    _value: T

    def __init__(self, value: T) -> None:
        """Wrap `value`."""
        self._value = value

    def reveal(self) -> T:
        """Return the secret itself, at the one place that needs it."""
        return self._value

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "Secret(***)"

    __str__ = __repr__
