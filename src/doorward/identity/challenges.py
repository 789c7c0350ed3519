"""WWW-Authenticate values: what a stock OAuth client needs to try again (RFC 6750, 3; RFC 9449, 7.1)."""

from __future__ import annotations

from collections.abc import Iterable

from doorward.identity.key_sets import PROOF_ALGORITHMS

REALM = "doorward"


def bearer(error: str = "", description: str = "") -> str:
    """Return a Bearer challenge; without an error for a request that showed no credential."""
    return _challenge("Bearer", error, description)


def dpop(error: str = "", description: str = "") -> str:
    """Return a DPoP challenge with the algorithms proofs may be made with."""
    return _challenge("DPoP", error, description, ("algs", " ".join(PROOF_ALGORITHMS)))


def either() -> str:
    """Return what a request without any credential is told: both schemes, the common one first."""
    return f"{bearer()}, {dpop()}"


def _challenge(scheme: str, error: str, description: str, *more: tuple[str, str]) -> str:
    told = (("realm", REALM), ("error", error), ("error_description", description), *more)
    return f"{scheme} {_parameters((name, value) for name, value in told if value)}"


def _parameters(pairs: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in pairs)
