"""Whether what let a caller in still would: judged again while an answer is open, without waiting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from doorward.core.identity import Caller, Method
from doorward.core.ports import CredentialRegistry
from doorward.identity.access_tokens import TokenVerifier
from doorward.identity.descent import fault_of, unlinked
from doorward.identity.sign_in import sign_in_of, without_ended_mfa


class Standing:
    """Hold a caller against what is known now."""

    def __init__(self, verifier: TokenVerifier, *, local_issuer: Callable[[], str | None]) -> None:
        """Take what knows of opaque tokens, and the name of the local issuer as it is now."""
        self._verifier, self._local_issuer = verifier, local_issuer

    def holds(self, caller: Caller, registry: CredentialRegistry, now: datetime) -> bool:
        """Return whether nothing that let a caller in has ended, been revoked or been unlinked."""
        if caller.expires is not None and now >= caller.expires:
            return False
        if not registry.is_active(caller.principal) or not _device_stands(caller, registry, now):
            return False
        match caller.method:
            case Method.CERTIFICATE:
                return caller.certificate is not None
            case Method.TOKEN:
                return self._token_stands(caller, registry, now)
            case Method.SVID:
                linked = registry.principal_of(caller.issuer, caller.subject) == caller.principal
                return linked and not _signed_out(caller, registry)
        return _key_stands(caller, registry, now)

    def _token_stands(self, caller: Caller, registry: CredentialRegistry, now: datetime) -> bool:
        if registry.token_revoked(caller.credential) or _signed_out(caller, registry):
            return False
        if caller.descent is not None and (
            unlinked(caller.descent, registry, caller.principal)
            or fault_of(caller.descent, registry, now=now, ip=None) is not None
        ):
            return False
        if caller.issuer == self._local_issuer():
            return True
        if registry.principal_of(caller.issuer, caller.subject) != caller.principal:
            return False
        return not caller.introspected or self._verifier.stands(caller.issuer, caller.credential)


def _signed_out(caller: Caller, registry: CredentialRegistry) -> bool:
    out = registry.sign_out_of(caller.principal)
    if out is None:
        return False
    # An answer that was let out on MFA which counts no more ends; the next request is judged without it.
    return out.ends(sign_in_of(caller)) or without_ended_mfa(caller, out) != caller


def _key_stands(caller: Caller, registry: CredentialRegistry, now: datetime) -> bool:
    record = registry.key_by_id(caller.credential)
    if record is None or record.subject != caller.principal:
        return False
    return record.expires is None or now < record.expires


def _device_stands(caller: Caller, registry: CredentialRegistry, now: datetime) -> bool:
    if caller.device is None:
        return True
    if not registry.is_active(caller.device):
        return False
    if caller.certificate is None:
        return not caller.device_proven or caller.minted
    return registry.device_of_certificate(caller.certificate, now) == caller.device
