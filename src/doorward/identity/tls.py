"""TLS for listeners: 1.3 preferred, 1.2 at least, client certificates asked for but not demanded."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from doorward.core.errors import InvalidConfigError
from doorward.settings import TlsSettings

_ENCODING_DER = 2  # of the `_ssl` module, which names it only privately
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for 1.2; 1.3 has none that are weak


class TlsFiles(msgspec.Struct, frozen=True):
    """Where a listener's certificate, key and client CA stand; certificate and key may share a file."""

    cert: Path
    key: Path
    client_ca: Path | None


def automatic_files(data: Path, name: str) -> TlsFiles:
    """Return where `tls = "auto"` keeps the files of one listener (`gateway`, `control`)."""
    pair = data / "tls" / f"{name}.pem"
    return TlsFiles(pair, pair, data / "tls" / "ca.pem")


def files_of(
    tls: TlsSettings | Literal["auto"], *, data: Path, name: str, resolve: Callable[[Path], Path]
) -> TlsFiles:
    """Return the files of a listener's setting; `resolve` makes configured paths absolute."""
    if tls == "auto":
        return automatic_files(data, name)
    client_ca = None if tls.client_ca is None else resolve(tls.client_ca)
    return TlsFiles(resolve(tls.cert), resolve(tls.key), client_ca)


def server_context(files: TlsFiles, *, authorities: Sequence[bytes] = ()) -> ssl.SSLContext:
    """Return a listener's context; raise InvalidConfigError if a file is missing or does not fit.

    A client certificate is optional, but one that is shown must verify against the client CA. Which
    device it stands for, and whether it was revoked, is judged on each request. `authorities` (DER) may
    sign clients' certificates, too: those of SPIFFE trust domains, judged on each request as well.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    reload(context, files)
    if files.client_ca is not None or authorities:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        trust(context, authorities)
    return context


def trust(context: ssl.SSLContext, authorities: Sequence[bytes]) -> None:
    """Let TLS accept certificates signed by these, too, for connections from now on.

    What TLS accepted once it goes on accepting: whether an authority still counts is judged per request.
    """
    for authority in authorities:
        context.load_verify_locations(cadata=authority)


def chain_of(session: ssl.SSLObject) -> tuple[bytes, ...]:
    """Return the chain by which TLS verified the client, from its certificate upwards (DER)."""
    public = getattr(session, "get_verified_chain", None)
    if public is not None:  # Python 3.13
        return tuple(public())
    inner: Any = getattr(session, "_sslobj", None)
    if inner is None:
        return ()
    return tuple(_ssl_der(one) for one in inner.get_verified_chain() or ())


def _ssl_der(certificate: Any) -> bytes:
    return bytes(certificate.public_bytes(_ENCODING_DER))


def reload(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Load certificate, key and client CA again, for connections from now on; raise InvalidConfigError.

    An authority that is gone from the file stays trusted by TLS until the next start; its certificates
    prove nothing, since each must be bound to its device besides.
    """
    if files.client_ca is not None:
        try:
            context.load_verify_locations(cafile=str(files.client_ca))
        except (OSError, ssl.SSLError) as reason:
            raise InvalidConfigError(
                f"the client CA {files.client_ca} cannot be used: {_said(reason)}"
            ) from reason
    try:
        context.load_cert_chain(str(files.cert), str(files.key))
    except (OSError, ssl.SSLError) as reason:
        raise InvalidConfigError(
            f"the certificate {files.cert} with the key {files.key} cannot be used: {_said(reason)}",
            hint="Both are PEM files that belong together.",
        ) from reason


def _said(reason: OSError) -> str:
    return reason.strerror or str(reason)
