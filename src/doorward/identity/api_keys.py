"""API keys: how they are made, read and judged. A key's text exists once; what is kept is its SHA-256."""

from __future__ import annotations

import difflib
import hashlib
import re
import secrets
import zlib
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network

from doorward.core.errors import InvalidRequestError
from doorward.core.identity import Bounds, Caller, KeyRecord, Method
from doorward.core.model import Action, EntityUid
from doorward.core.ports import CredentialRegistry
from doorward.core.secret import Secret
from doorward.identity.public_keys import public_key_of
from doorward.identity.strict_jose import decode_segment

PREFIX = "dw_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_SECRET_CHARS = 43  # 62**43 > 256**32
_CHECK_CHARS = 6  # 62**6 > 2**32
_KEY = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_CHECK_CHARS}}})", re.ASCII)
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=3650)
_ASSETS = ("Model", "Dataset", "Endpoint", "Tool")


def _base62(value: int, width: int) -> str:
    digits: list[str] = []
    for _ in range(width):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    # Catches typing and cutting errors, and lets leak scanners tell keys from noise; it is no secret.
    return _base62(zlib.crc32(body.encode()), _CHECK_CHARS)


def new_text(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return the text of a new key: `dw_`, 256 random bits and a checksum, in base 62."""
    body = _base62(int.from_bytes(random_bytes(_SECRET_BYTES)), _SECRET_CHARS)
    return PREFIX + body + _checksum(body)


def digest_of(text: str) -> str | None:
    """Return the SHA-256 (hex) to look a key up by; None if the text cannot be a key."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(match[1]) != match[2]:
        return None
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def hidden(text: str) -> str:
    """Return a text with the secret of every key in it left out: where callers write them by mistake."""
    return _KEY.sub(f"{PREFIX}…", text) if PREFIX in text else text


def access_key_id_of(key_id: str) -> str:
    """Return the S3 access key id that goes with a key's id (`DW` and the id; 16-128 characters)."""
    return f"DW{key_id}"


def create(  # noqa: PLR0913 -- the fields of a key
    *,
    key_id: str,
    subject: EntityUid,
    now: datetime,
    lifetime: timedelta | None = None,
    device: EntityUid | None = None,
    purpose: str | None = None,
    networks: tuple[str, ...] = (),
    bounds: Bounds | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[KeyRecord, Secret[str]]:
    """Make a key: its record, and its text, which is shown once and stored nowhere.

    Raises InvalidRequestError for a network that is not a CIDR.
    """
    text = new_text(random_bytes)
    record = KeyRecord(
        id=key_id,
        hash=hashlib.sha256(text.encode("ascii")).hexdigest(),
        subject=subject,
        created=now,
        expires=None if lifetime is None else now + lifetime,
        device=device,
        purpose=purpose,
        networks=tuple(map(_checked_network, networks)),
        access_key_id=access_key_id_of(key_id),
        bounds=bounds,
    )
    return record, Secret(text)


def registered(  # noqa: PLR0913 -- the fields of a key
    public_key: str,
    *,
    key_id: str,
    subject: EntityUid,
    now: datetime,
    lifetime: timedelta | None = None,
    purpose: str | None = None,
    networks: tuple[str, ...] = (),
    bounds: Bounds | None = None,
) -> KeyRecord:
    """Return the record of a client's public key (JWK or PEM), whose private half stays with the client.

    Raises InvalidRequestError for anything that is not one strong public key.
    """
    key = public_key_of(public_key)
    return KeyRecord(
        id=key_id,
        hash=decode_segment(key.thumbprint).hex(),
        subject=subject,
        created=now,
        expires=None if lifetime is None else now + lifetime,
        purpose=purpose,
        networks=tuple(map(_checked_network, networks)),
        bounds=bounds,
        public_key={name: str(value) for name, value in key.key.as_dict(private=False).items()},
    )


def successor_of(
    old: KeyRecord,
    *,
    key_id: str,
    now: datetime,
    lifetime: timedelta | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[KeyRecord, Secret[str]]:
    """Make the key that replaces another: bound by all that bound the old one, living as long from now."""
    if lifetime is None and old.expires is not None:
        lifetime = old.expires - old.created
    return create(
        key_id=key_id,
        subject=old.subject,
        now=now,
        lifetime=lifetime,
        device=old.device,
        purpose=old.purpose,
        networks=old.networks,
        bounds=old.bounds,
        random_bytes=random_bytes,
    )


def bounds_of(
    *, actions: Iterable[str] = (), upstreams: Iterable[str] = (), resources: Iterable[str] = ()
) -> Bounds | None:
    """Read what a key shall be bounded to; None if nothing is said. Raises InvalidRequestError."""
    named = tuple(sorted(set(actions)))
    unknown = [name for name in named if name not in set(Action)]
    if unknown:
        near = difflib.get_close_matches(unknown[0], list(Action), n=1)
        raise InvalidRequestError(
            f"`{unknown[0]}` is no action", hint=f"Did you mean `{near[0]}`?" if near else ""
        )
    assets = tuple(sorted({EntityUid.parse(name) for name in resources}))
    wrong = [uid for uid in assets if uid.kind not in _ASSETS]
    if wrong:
        raise InvalidRequestError(f"{wrong[0]} is no asset", hint=f"Name one of {', '.join(_ASSETS)}.")
    found = Bounds(named, tuple(sorted(set(upstreams))), assets)
    return None if found == Bounds() else found


def parse_lifetime(text: str) -> timedelta:
    """Read `90d`, `12h`, `30m`, `45s`, `2w`; raise InvalidRequestError for anything else."""
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"`{text}` is not a lifetime", hint="Write a number and s, m, h, d or w: 90d."
        )
    lifetime = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if lifetime > LONGEST:
        raise InvalidRequestError(
            f"a lifetime of {text} is too long", hint=f"The longest is {LONGEST.days}d."
        )
    return lifetime


def _checked_network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as reason:
        raise InvalidRequestError(
            f"`{text}` is not a network ({reason})", hint="Write a CIDR: 10.0.0.0/8 or 192.0.2.7/32."
        ) from reason


def fault_of(record: KeyRecord, *, ip: str, now: datetime, registry: CredentialRegistry) -> str | None:
    """Return why a known key may not be used now from there (for the record), or None if it may."""
    if record.expires is not None and now >= record.expires:
        return "key_expired"
    if record.networks and not _within(ip, record.networks):
        return "key_used_from_elsewhere"
    if not registry.is_active(record.subject):
        return "subject_inactive"
    if record.device is not None and not registry.is_active(record.device):
        return "device_inactive"
    return None


def _within(ip: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    # A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in ip_network(network) for network in networks)


def caller_of(record: KeyRecord, method: Method = Method.API_KEY) -> Caller:
    """Return the caller a key stands for; a device it names is known by it, not proven."""
    return Caller(
        principal=record.subject,
        credential=record.id,
        method=method,
        device=record.device,
        bound_purpose=record.purpose,
        # A key signs in once, when it is made: no rule about the age of a session takes it for fresh.
        signed_in_at=record.created,
        expires=record.expires,
        bounds=() if record.bounds is None else (record.bounds,),
        vouched_by="key",
        vouched_at=record.created,
        tied=bool(record.networks) or record.device is not None,
    )
