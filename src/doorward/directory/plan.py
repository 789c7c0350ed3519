"""What applying a file would change: pure, from the file and a snapshot to items and one delta."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from doorward.core.errors import ConflictError, InvalidConfigError
from doorward.core.feed import Delta, Place
from doorward.core.identity import DeviceCertificate, IdentityLink
from doorward.core.model import Entity, EntityUid
from doorward.core.provisioning import Vouched
from doorward.core.values import entity_to_json, uid_to_json
from doorward.directory.beside import Beside
from doorward.directory.duties import require_apart
from doorward.directory.org import Org, require_known, require_no_circle, undeclared
from doorward.directory.registry import Registry
from doorward.directory.snapshot import Snapshot
from doorward.directory.views import plain
from doorward.directory.vocabulary import ASSETS, PRINCIPALS
from doorward.store.provisioning import ProvisioningChange

_PRUNED: Final = frozenset({*PRINCIPALS, *ASSETS, "Role", "Group", "Project"})
# (issuer, subject) of an identity, (fingerprint,) of a certificate.
Declared = frozenset[tuple[str, ...]]


class Op(StrEnum):
    """Say what happens to one object."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a plan; `changes` maps what differs to [before, after] (None: absent)."""

    op: Op
    kind: str
    name: str
    changes: dict[str, list[Any]] = msgspec.field(default_factory=dict)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What would be (or was) done; no items means the directory already says what the file says.

    `delta` leads from `delta.version - 1` to `delta.version`; `declared` is what files state after it.
    `warnings` name what the file refers to and nobody declares yet.
    """

    items: tuple[Item, ...]
    delta: Delta
    declared: Declared
    warnings: tuple[str, ...] = ()
    change: ProvisioningChange = ProvisioningChange()

    @property
    def version(self) -> int:
        """Return the version the directory has after the plan."""
        return self.delta.version if self.items else self.delta.version - 1


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now, and what only administration needs to know beside it.

    `vouched` is when each followed source last answered whole, and for how long that counts.
    """

    snapshot: Snapshot
    declared: Declared = frozenset()
    certificates_revoked: frozenset[str] = frozenset()
    registry: Registry = msgspec.field(default_factory=lambda: Registry.of((), ()))
    vouched: dict[str, Vouched] = msgspec.field(default_factory=dict)


def make(org: Org, held: Held, now: datetime, *, prune: bool) -> Plan:
    """Compare a file with what is known; raise InvalidConfigError or ConflictError if they contradict.

    Objects the file does not name are left alone unless `prune`. What goes takes its keys,
    identities and certificates along, so that a later object of that name does not inherit them.
    """
    stated = held.snapshot.stated
    wanted = {uid: Entity(uid) for uid in org.implied if uid not in stated}
    beside = Beside.of(org, held, now, prune=prune)
    wanted |= {entity.uid: entity for entity in org.entities} | beside.entities
    removed = _removed(org, stated) - beside.kept if prune else frozenset()
    after = {uid: entity for uid, entity in stated.items() if uid not in removed} | wanted
    require_known(org, after, going=removed)
    require_no_circle(org, {uid: entity.parents for uid, entity in after.items()})
    require_apart(wanted.values())
    changed = [entity for uid, entity in wanted.items() if stated.get(uid) != entity]
    identities = _identities(org, held, removed)
    certificates = _certificates(org, held, removed)
    keys = _orphans(held.snapshot, removed)
    zones = _zones(org, held.snapshot, prune=prune)
    places = _places(org, held.snapshot, zones)
    if zones is None and places != held.snapshot.places:
        zones = dict(held.snapshot.zones)
    # Removing an asset ends what was said about it on record.
    lowered = held.snapshot.lowered - {str(uid) for uid in removed}
    delta = Delta(
        version=held.snapshot.version + 1,
        entities=tuple(entity_to_json(entity) for entity in changed),
        entities_removed=tuple(uid_to_json(uid) for uid in sorted(removed)),
        keys_removed=keys,
        identities=identities.added,
        identities_removed=identities.removed,
        certificates=certificates.added,
        certificates_removed=certificates.removed,
        zones=zones,
        places=places if zones is not None else {},
        lowered=None if lowered == held.snapshot.lowered else tuple(sorted(lowered)),
    )
    # What a file says beside a source may change nothing now, and much once the source is silent.
    silent = sorted(beside.spoken_of - {entity.uid for entity in changed})
    items = [Item(op=Op.CHANGE, kind=uid.kind, name=uid.id) for uid in silent]
    return Plan(
        items=(*lines(held.snapshot, delta, changed, sorted(removed)), *items),
        delta=delta,
        declared=_declared(held, delta),
        warnings=undeclared(org, after),
        change=beside.change(removed),
    )


def lines(
    snapshot: Snapshot, delta: Delta, changed: Iterable[Entity], removed: Iterable[EntityUid]
) -> tuple[Item, ...]:
    """Return what a delta does, one line an object, in order of kind and name."""
    items = [_item(snapshot.stated.get(entity.uid), entity) for entity in changed]
    items += [Item(op=Op.REMOVE, kind=uid.kind, name=uid.id) for uid in removed]
    items += _other_items(snapshot, delta)
    return tuple(sorted(items, key=lambda item: (item.kind, item.name, item.op)))


def _removed(org: Org, stated: Iterable[EntityUid]) -> frozenset[EntityUid]:
    named = {entity.uid for entity in org.entities} | org.implied
    return frozenset(uid for uid in stated if uid.kind in _PRUNED and uid not in named)


def _item(before: Entity | None, after: Entity) -> Item:
    old, new = _flat(before), _flat(after)
    differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return Item(
        op=Op.ADD if before is None else Op.CHANGE,
        kind=after.uid.kind,
        name=after.uid.id,
        changes={key: [old.get(key), new.get(key)] for key in differing},
    )


def _flat(entity: Entity | None) -> dict[str, Any]:
    """Return an entity's facts as plain JSON by name; memberships under `in`."""
    if entity is None:
        return {}
    facts = {name: plain(value) for name, value in entity.attrs.items()}
    if entity.parents:
        facts["in"] = [str(parent) for parent in sorted(entity.parents)]
    return facts | {f"tags.{name}": value for name, value in entity.tags.items()}


class _Links(msgspec.Struct, frozen=True):
    added: tuple[IdentityLink, ...]
    removed: tuple[tuple[str, str], ...]


def _identities(org: Org, held: Held, gone: frozenset[EntityUid]) -> _Links:
    current = held.snapshot.identities
    named = {entity.uid for entity in org.entities}
    wanted = {(link.issuer, link.subject): link for link in org.identities}
    for pair, link in wanted.items():
        owner = current.get(pair, link.principal)
        if owner != link.principal and owner not in named | gone:
            raise ConflictError(
                f"{org.places[link.principal]}: identity {pair} is linked to {owner},"
                " which the file does not name",
                hint="Unlink it there first, or name both in the file.",
            )
    dropped = {
        pair
        for pair, owner in current.items()
        if pair not in wanted and (owner in gone or (owner in named and pair in held.declared))
    }
    # A link made otherwise becomes the file's once the file states it.
    added = (
        link
        for pair, link in wanted.items()
        if current.get(pair) != link.principal or pair not in held.declared
    )
    return _Links(tuple(added), tuple(sorted(dropped)))


class _Bindings(msgspec.Struct, frozen=True):
    added: tuple[DeviceCertificate, ...]
    removed: tuple[str, ...]


def _certificates(org: Org, held: Held, gone: frozenset[EntityUid]) -> _Bindings:
    current = held.snapshot.certificates
    named = {entity.uid for entity in org.entities}
    wanted = {c.fingerprint: c for c in org.certificates}
    added: list[DeviceCertificate] = []
    for fingerprint, certificate in wanted.items():
        place = org.places[certificate.device]
        if fingerprint in held.certificates_revoked:
            raise ConflictError(
                f"{place}: the certificate of {certificate.device} was revoked",
                hint="Take it out of the file and issue a new one: `doorward devices enrol`.",
            )
        bound = current.get(fingerprint)
        if bound is not None and bound.device not in named | gone | {certificate.device}:
            raise ConflictError(
                f"{place}: the certificate of {certificate.device} proves {bound.device},"
                " which the file does not name",
                hint="A certificate proves one device. Revoke it there first.",
            )
        if bound is None or bound.device != certificate.device:
            added.append(certificate)
    dropped = {
        fingerprint
        for fingerprint, bound in current.items()
        if fingerprint not in wanted
        and (bound.device in gone or (bound.device in named and (fingerprint,) in held.declared))
    }
    return _Bindings(tuple(added), tuple(sorted(dropped)))


def _orphans(snapshot: Snapshot, gone: frozenset[EntityUid]) -> tuple[str, ...]:
    """Return the keys of subjects and devices that go."""
    return tuple(
        sorted(key.id for key in snapshot.keys.values() if key.subject in gone or key.device in gone)
    )


def _zones(org: Org, snapshot: Snapshot, *, prune: bool) -> dict[str, tuple[str, ...]] | None:
    after = dict(org.zones) if prune else {**snapshot.zones, **org.zones}
    owners: dict[str, str] = {}
    for name, networks in sorted(after.items()):
        for network in networks:
            if owners.setdefault(network, name) != name:
                raise InvalidConfigError(
                    f"{org.source}: network {network} lies in two zones, `{owners[network]}` and `{name}`",
                    hint="A network has one zone: take it out of one of them.",
                )
    return None if after == snapshot.zones else after


def _places(org: Org, snapshot: Snapshot, zones: Mapping[str, tuple[str, ...]] | None) -> dict[str, Place]:
    """Return where the zones lie after the file: as it says, for those it names."""
    kept = {name: place for name, place in snapshot.places.items() if name not in org.zones}
    there = snapshot.zones if zones is None else zones
    return {name: place for name, place in {**kept, **org.places_of_zones}.items() if name in there}


def _other_items(snapshot: Snapshot, delta: Delta) -> list[Item]:
    """Return the lines for what is no entity: identities, certificates, keys, zones."""
    items = [
        _line("Identity", f"{link.issuer} {link.subject}", None, link.principal) for link in delta.identities
    ]
    items += [
        _line("Identity", " ".join(pair), snapshot.identities[pair], None)
        for pair in delta.identities_removed
    ]
    items += [_line("Certificate", c.fingerprint, None, c.device) for c in delta.certificates]
    items += [
        _line("Certificate", fingerprint, snapshot.certificates[fingerprint].device, None)
        for fingerprint in delta.certificates_removed
    ]
    items += [_line("Key", key, snapshot.keys[key].subject, None) for key in delta.keys_removed]
    before, after = snapshot.zones, delta.zones if delta.zones is not None else snapshot.zones
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            items.append(_line("Zone", name, before.get(name), after.get(name)))
        elif delta.zones is not None and snapshot.places.get(name) != delta.places.get(name):
            items.append(
                _line("Zone", name, snapshot.places.get(name), delta.places.get(name, "nowhere known"))
            )
    return items


def _line(kind: str, name: str, before: object, after: object) -> Item:
    op = Op.ADD if before is None else Op.REMOVE if after is None else Op.CHANGE
    return Item(op=op, kind=kind, name=name, changes={"is": [_said(before), _said(after)]})


def _said(value: object) -> Any:
    return list(value) if isinstance(value, tuple) else None if value is None else str(value)


def _declared(held: Held, delta: Delta) -> Declared:
    gone = {*delta.identities_removed, *((f,) for f in delta.certificates_removed)}
    now = {(link.issuer, link.subject) for link in delta.identities} | {
        (c.fingerprint,) for c in delta.certificates
    }
    return frozenset((held.declared - gone) | now)


def document(plan: Plan) -> list[Mapping[str, Any]]:
    """Return the plan as JSON: `[{op, kind, name, changes}]`."""
    items: list[Mapping[str, Any]] = msgspec.to_builtins(plan.items)
    return items
