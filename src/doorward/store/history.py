"""Keep the directory: its state, and every change to it in order, one transaction each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import Table, bindparam, delete, insert, select, update

from doorward.core.errors import ConflictError
from doorward.core.feed import Delta, Known, Place
from doorward.core.identity import Bounds, DeviceCertificate, IdentityLink, KeyRecord, SignOut
from doorward.core.provisioning import Provisioned, Statement
from doorward.core.values import uid_from_json
from doorward.store import sign_ins, tables
from doorward.store.provisioning import (
    ProvisioningChange,
    load_provisioned,
    load_statements,
    write_provisioning,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from doorward.store.database import Database

    Rows = Sequence[dict[str, Any]]

_ONE: Final = 1


class Lowering(msgspec.Struct, frozen=True):
    """State that an asset may be less sensitive than what covers it, and who said why."""

    asset: str
    operator: str
    reason: str
    time: datetime


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change to the directory, with what a delta does not tell.

    `declared` lists identities (issuer, subject) and certificates (fingerprint,) that a file states.
    `certificates_revoked` are kept as revoked rather than forgotten; `tokens` are (jti, expires).
    """

    delta: Delta
    time: datetime
    operator: str
    declared: frozenset[tuple[str, ...]] = frozenset()
    certificates_revoked: frozenset[str] = frozenset()
    tokens: tuple[tuple[str, datetime], ...] = ()
    lowerings: tuple[Lowering, ...] = ()
    provisioning: ProvisioningChange = ProvisioningChange()


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """The stored state: what gateways may know, and what only administration needs."""

    known: Known
    declared: frozenset[tuple[str, ...]]
    certificates_revoked: frozenset[str]
    statements: tuple[Statement, ...] = ()
    provisioned: tuple[Provisioned, ...] = ()


class SqlHistory:
    """Keep the directory in SQL."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database

    def load(self, now: datetime) -> Loaded:
        """Return the state at the newest version; tokens that expired by `now` are left out."""
        with self._database.read() as connection:
            return _load(connection, now)

    def append(self, entry: Entry) -> None:
        """Write one change; raise ConflictError if the stored state is not the one it was made for."""
        with self._database.write() as connection:
            _advance(connection, entry.delta.version)
            _write_entities(connection, entry.delta)
            _write_credentials(connection, entry)
            _write_rest(connection, entry)
            write_provisioning(connection, entry.provisioning)
            _forget_accounts(connection, entry)

    def changes(self, *, after: int = 0, limit: int = 1000) -> list[tuple[int, datetime, str, Delta]]:
        """Return (version, time, operator, delta) of the changes after a version, oldest first."""
        columns = tables.changes.c
        query = select(tables.changes).where(columns.version > after).order_by(columns.version).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [(r.version, r.time, r.operator, msgspec.convert(r.delta, Delta)) for r in rows]


def _load(connection: Connection, now: datetime) -> Loaded:
    links = connection.execute(select(tables.identities)).all()
    bound = connection.execute(select(tables.certificates)).all()
    live = select(tables.revoked_tokens.c.jti).where(tables.revoked_tokens.c.expires > now)
    zones, places = _zones(connection)
    known = Known(
        version=connection.execute(select(tables.directory_version.c.version)).scalar_one(),
        entities=tuple(
            {
                "uid": {"type": r.type, "id": r.id},
                "attrs": r.attrs,
                "parents": r.parents,
                **({"tags": r.tags} if r.tags else {}),
            }
            for r in connection.execute(select(tables.entities))
        ),
        keys=tuple(map(_key, connection.execute(select(tables.api_keys)).mappings())),
        identities=tuple(IdentityLink(r.issuer, r.subject, r.principal) for r in links),
        certificates=tuple(
            DeviceCertificate(r.fingerprint, r.device, r.expires) for r in bound if r.revoked is None
        ),
        zones=zones,
        places=places,
        revoked_tokens=tuple(connection.execute(live).scalars()),
        lowered=tuple(connection.execute(select(tables.lowered_assets.c.asset)).scalars()),
        sign_outs=tuple(
            SignOut(r.principal, r.before, r.mfa_before) for r in connection.execute(select(tables.sign_outs))
        ),
    )
    declared = {(r.issuer, r.subject) for r in links if r.declared}
    return Loaded(
        known=known,
        declared=frozenset(
            {*declared, *((r.fingerprint,) for r in bound if r.declared and r.revoked is None)}
        ),
        certificates_revoked=frozenset(r.fingerprint for r in bound if r.revoked is not None),
        statements=load_statements(connection),
        provisioned=load_provisioned(connection),
    )


def _zones(connection: Connection) -> tuple[dict[str, tuple[str, ...]], dict[str, Place]]:
    """Return zones and where they lie; a row is a list of networks, or says both."""
    rows = {row.name: row.networks for row in connection.execute(select(tables.zones))}
    placed = {name: said for name, said in rows.items() if isinstance(said, dict)}
    zones = {name: tuple(said["networks"] if name in placed else said) for name, said in rows.items()}
    return zones, {name: msgspec.convert(said["place"], Place) for name, said in placed.items()}


def _zone_row(networks: Sequence[str], place: Place | None) -> Any:
    listed = list(networks)
    return listed if place is None else {"networks": listed, "place": msgspec.to_builtins(place)}


def _key(row: Any) -> KeyRecord:
    return KeyRecord(
        **{
            **row,
            "networks": tuple(row["networks"]),
            "access_key_id": row["access_key_id"] or "",
            "bounds": None if row["bounds"] is None else msgspec.convert(row["bounds"], Bounds),
            "successor": row["successor"] or "",
        }
    )


def _advance(connection: Connection, version: int) -> None:
    """Claim the next version; another process that wrote meanwhile makes this one fail."""
    current = tables.directory_version
    claimed = connection.execute(
        update(current).where(current.c.one == _ONE, current.c.version == version - 1).values(version=version)
    )
    if claimed.rowcount != 1:
        raise ConflictError(
            f"the directory is no longer at version {version - 1}",
            hint="Another process changed it. Run one control process per data directory.",
        )


def _replace(connection: Connection, table: Table, rows: Rows, gone: Rows) -> None:
    """Delete `gone` and the keys of `rows`, then insert `rows`: an upsert every database knows."""
    keys = [column.name for column in table.primary_key]
    for_key = delete(table).where(*(table.c[key] == bindparam(f"k_{key}") for key in keys))
    doomed = [{f"k_{key}": row[key] for key in keys} for row in (*gone, *rows)]
    if doomed:
        connection.execute(for_key, doomed)
    if rows:
        connection.execute(insert(table), list(rows))


def _write_entities(connection: Connection, delta: Delta) -> None:
    rows = [
        {
            "type": e["uid"]["type"],
            "id": e["uid"]["id"],
            "attrs": e.get("attrs", {}),
            "parents": e.get("parents", []),
            "tags": e.get("tags", {}),
        }
        for e in delta.entities
    ]
    _replace(connection, tables.entities, rows, delta.entities_removed)


def _write_credentials(connection: Connection, entry: Entry) -> None:
    delta = entry.delta
    keys = [
        {
            **{name: getattr(key, name) for name in ("id", "hash", "generation", "subject", "device")},
            **{name: getattr(key, name) for name in ("purpose", "created", "expires")},
            "access_key_id": key.access_key_id or None,
            "bounds": None if key.bounds is None else msgspec.to_builtins(key.bounds),
            "successor": key.successor or None,
            "public_key": key.public_key,
            "networks": list(key.networks),
        }
        for key in delta.keys
    ]
    _replace(connection, tables.api_keys, keys, [{"id": key} for key in delta.keys_removed])
    links = [
        {
            "issuer": link.issuer,
            "subject": link.subject,
            "principal": link.principal,
            "declared": (link.issuer, link.subject) in entry.declared,
        }
        for link in delta.identities
    ]
    unlinked = [{"issuer": issuer, "subject": subject} for issuer, subject in delta.identities_removed]
    _replace(connection, tables.identities, links, unlinked)
    bound = [
        {
            "fingerprint": c.fingerprint,
            "device": c.device,
            "expires": c.expires,
            "declared": (c.fingerprint,) in entry.declared,
        }
        for c in delta.certificates
    ]
    forgotten = set(delta.certificates_removed) - entry.certificates_revoked
    _replace(connection, tables.certificates, bound, [{"fingerprint": f} for f in sorted(forgotten)])
    column = tables.certificates.c.fingerprint
    for fingerprint in sorted(entry.certificates_revoked):
        connection.execute(
            update(tables.certificates).where(column == fingerprint).values(revoked=entry.time)
        )


def _write_rest(connection: Connection, entry: Entry) -> None:
    delta = entry.delta
    if delta.zones is not None:
        connection.execute(delete(tables.zones))
        rows = [
            {"name": name, "networks": _zone_row(networks, delta.places.get(name))}
            for name, networks in delta.zones.items()
        ]
        _replace(connection, tables.zones, rows, ())
    if entry.tokens:
        over = tables.revoked_tokens.c.expires <= entry.time
        connection.execute(delete(tables.revoked_tokens).where(over))
        tokens = [{"jti": jti, "expires": expires} for jti, expires in entry.tokens]
        _replace(connection, tables.revoked_tokens, tokens, ())
    _replace(connection, tables.sign_outs, [msgspec.structs.asdict(out) for out in delta.sign_outs], ())
    if delta.lowered is not None:
        kept = tables.lowered_assets.c.asset
        connection.execute(delete(tables.lowered_assets).where(kept.not_in(delta.lowered)))
        lowerings = [msgspec.structs.asdict(lowering) for lowering in entry.lowerings]
        _replace(connection, tables.lowered_assets, lowerings, ())
    connection.execute(
        insert(tables.changes).values(
            version=delta.version,
            time=entry.time,
            operator=entry.operator,
            delta=msgspec.to_builtins(_without_secrets(delta)),
        )
    )


def _without_secrets(delta: Delta) -> Delta:
    """Take derived secrets out: they are never stored."""
    keys = tuple(msgspec.structs.replace(key, s3_secret=None) for key in delta.keys)
    return msgspec.structs.replace(delta, keys=keys)


def _forget_accounts(connection: Connection, entry: Entry) -> None:
    """Take away the console from users that are gone, so that a new one of that name starts afresh."""
    gone: Iterable[Any] = (*map(uid_from_json, entry.delta.entities_removed), *entry.provisioning.forgotten)
    for uid in gone:
        for table in (
            tables.passkeys, tables.sessions, tables.authenticators, tables.recovery_codes, tables.links,
        ):  # fmt: skip
            connection.execute(delete(table).where(table.c.principal == uid))
        sign_ins.forget(connection, uid)
