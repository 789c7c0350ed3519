"""Everything known at one version, immutable: what decisions and credential checks read.

A snapshot holds entities as they were stated; what it hands out is effective (see `effective`):
defaults filled in, names inherited from what covers them, purposes joined with the projects'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from doorward.core.errors import ConflictError
from doorward.core.feed import Delta, Known, Place
from doorward.core.identity import DeviceCertificate, IdentityLink, KeyRecord, SignOut
from doorward.core.model import Entity, EntityUid
from doorward.core.values import entity_from_json, entity_to_json, uid_from_json
from doorward.directory import effective
from doorward.directory.credentials import Credentials
from doorward.directory.effects import Effects, only_themselves
from doorward.directory.interning import Names
from doorward.directory.key_table import KeyTable
from doorward.directory.names import lineage
from doorward.directory.shards import Shards
from doorward.directory.vocabulary import CONTROLS, ENVIRONMENTS
from doorward.directory.zones import ZoneMap

K = TypeVar("K")
V = TypeVar("V")

_DEVICE = EntityUid.of("Device", "").type
_AGENT, _USER = EntityUid.of("Agent", "").type, EntityUid.of("User", "").type

# Enumerated in the schema: they exist without being registered.
_CONSTANT = {
    uid: Entity(uid)
    for kind, names in (("Environment", ENVIRONMENTS), ("Control", CONTROLS))
    for uid in (EntityUid.of(kind, name) for name in names)
}


class Snapshot(Credentials):
    """Answer what is known at `version`. Never changes; `with_delta` makes the next one."""

    __slots__ = (
        "_certificates",
        "_effects",
        "_entities",
        "_identities",
        "_jwks",
        "_keys",
        "_lowered",
        "_owned",
        "_revoked",
        "_sign_outs",
        "_step",
        "_zones",
        "version",
    )

    def __init__(  # noqa: PLR0913 -- one per table; only `of` and `with_delta` call it
        self,
        *,
        version: int,
        entities: Shards[EntityUid, Entity],
        keys: KeyTable,
        identities: Shards[tuple[str, str], EntityUid],
        certificates: Shards[str, DeviceCertificate],
        zones: ZoneMap,
        revoked: frozenset[str],
        jwks: dict[str, Any],
        lowered: frozenset[str],
        sign_outs: Shards[EntityUid, SignOut],
        effects: Effects,
    ) -> None:
        """Keep the tables; nobody writes to them again, but `effects` fills up as it is asked."""
        self.version = version
        self._entities, self._keys = entities, keys
        self._identities, self._certificates = identities, certificates
        self._zones, self._revoked, self._jwks, self._lowered = zones, revoked, jwks, lowered
        self._sign_outs = sign_outs
        self._effects = effects
        # The version before, by its effects, and the entities that are different from it.
        self._step: tuple[Effects, frozenset[EntityUid]] | None = None
        self._owned: dict[EntityUid, tuple[EntityUid, ...]] | None = None

    @classmethod
    def of(cls, known: Known) -> Snapshot:
        """Build a snapshot from what the control process sends first."""
        names = Names()
        stated = (names.entity(entity_from_json(document)) for document in known.entities)
        entities = Shards.of({entity.uid: entity for entity in stated})
        lowered = frozenset(known.lowered)
        return cls(
            version=known.version,
            entities=entities,
            keys=KeyTable.of(known.keys),
            identities=Shards.of({(link.issuer, link.subject): link.principal for link in known.identities}),
            certificates=Shards.of({c.fingerprint: c for c in known.certificates}),
            zones=ZoneMap(known.zones, known.places),
            revoked=frozenset(known.revoked_tokens),
            jwks=known.issuer_jwks,
            lowered=lowered,
            sign_outs=Shards.of({out.principal: out for out in known.sign_outs}),
            effects=Effects(entities, lowered, names),
        )

    def with_delta(self, delta: Delta) -> Snapshot:
        """Return the next version; raise ConflictError if `delta` does not follow this one."""
        if delta.version != self.version + 1:
            raise ConflictError(
                f"version {delta.version} does not follow version {self.version}",
                hint="Ask for the whole state again.",
            )
        names = self._effects.names
        stated = (names.entity(entity_from_json(document)) for document in delta.entities)
        put = {entity.uid: entity for entity in stated}
        removed = [uid_from_json(uid) for uid in delta.entities_removed]
        links = {(link.issuer, link.subject): link.principal for link in delta.identities}
        certificates = {c.fingerprint: c for c in delta.certificates}
        entities = self._entities.changed(put, removed)
        lowered = self._lowered if delta.lowered is None else frozenset(delta.lowered)
        keys = (*(key.id for key in delta.keys), *delta.keys_removed)
        changed = frozenset((*put, *removed, *(EntityUid.of("Key", name) for name in keys)))
        after = Snapshot(
            version=delta.version,
            entities=entities,
            keys=self._keys.changed(delta.keys, delta.keys_removed),
            identities=self._identities.changed(links, delta.identities_removed),
            certificates=self._certificates.changed(certificates, delta.certificates_removed),
            zones=self._zones if delta.zones is None else ZoneMap(delta.zones, delta.places),
            revoked=self._revoked.union(delta.tokens_revoked) if delta.tokens_revoked else self._revoked,
            jwks=self._jwks,
            lowered=lowered,
            sign_outs=self._sign_outs.changed({out.principal: out for out in delta.sign_outs}, ()),
            effects=self._effects.after(entities, lowered, changed),
        )
        if delta.lowered is None and only_themselves(changed):
            after._step = self._effects, changed
        return after

    def changed_from(self, before: Snapshot) -> frozenset[EntityUid] | None:
        """Return which entities are different from the version `before`, which must be the last one.

        None if it is not, or if what is known of others may be different too: under a changed asset, say.
        What lies above others may be different whenever it changes.
        """
        return self._step[1] if self._step is not None and self._step[0] is before._effects else None

    @property
    def known(self) -> Known:
        """Return the whole state as it was stated, in one canonical order."""
        return Known(
            version=self.version,
            entities=tuple(entity_to_json(self._entities[uid]) for uid in sorted(self._entities)),
            keys=tuple(key for _, key in sorted(self._keys.by_id.items())),
            identities=tuple(IdentityLink(*pair, uid) for pair, uid in sorted(self._identities.items())),
            certificates=tuple(c for _, c in sorted(self._certificates.items())),
            zones=dict(sorted(self._zones.zones.items())),
            places=dict(sorted(self._zones.places.items())),
            revoked_tokens=tuple(sorted(self._revoked)),
            issuer_jwks=self._jwks,
            lowered=tuple(sorted(self._lowered)),
            sign_outs=tuple(out for _, out in sorted(self._sign_outs.items())),
        )

    # Entities

    @property
    def stated(self) -> Mapping[EntityUid, Entity]:
        """Return the registered entities as they were stated, without defaults or inheritance."""
        return self._entities

    @property
    def identities(self) -> Mapping[tuple[str, str], EntityUid]:
        """Return the linked identities: (issuer, subject) -> principal."""
        return self._identities

    @property
    def certificates(self) -> Mapping[str, DeviceCertificate]:
        """Return the bound certificates by fingerprint."""
        return self._certificates

    @property
    def keys(self) -> Mapping[str, KeyRecord]:
        """Return the unrevoked API keys by id."""
        return self._keys.by_id

    @property
    def zones(self) -> Mapping[str, tuple[str, ...]]:
        """Return the zones: name -> CIDRs."""
        return self._zones.zones

    @property
    def lowered(self) -> frozenset[str]:
        """Return the assets that may be less sensitive than what covers them."""
        return self._lowered

    def entity(self, uid: EntityUid) -> Entity | None:
        """Return a registered entity (effective), None for any other name."""
        return self._effects.of(uid) or _CONSTANT.get(uid) or self._key_entity(uid)

    def resolve(self, uid: EntityUid) -> Entity | None:
        """Return what is known of a name: registered, or covered by its nearest registered ancestor.

        Only assets are covered, by path segment and by an ancestor of their own kind. None means
        unknown, which is denied.
        """
        found = self.entity(uid)
        if found is not None or not effective.is_asset(uid):
            return found
        above = self._effects.nearest_above(uid)
        return None if above is None else effective.covered_asset(uid, above)

    def lookup(self, uid: EntityUid) -> Entity | None:
        """Return what evaluation may read under a name: `resolve`, and what exists by being named."""
        entity = self.resolve(uid)
        return Entity(uid) if entity is None and effective.is_grouping(uid) else entity

    def covering(self, name: str, kinds: tuple[str, ...]) -> EntityUid | None:
        """Return the registered asset of one of `kinds` with the longest name equal to or above `name`.

        Of two kinds registered under the same name, the one named first in `kinds` is meant.
        """
        for candidate in lineage(name):
            for kind in kinds:
                uid = EntityUid.of(kind, candidate)
                if uid in self._entities:
                    return uid
        return None

    def closure(self, uids: Iterable[EntityUid]) -> dict[EntityUid, Entity]:
        """Return these entities with all their ancestors and every entity their attributes name.

        Unknown principals and assets are left out; roles, groups, projects, upstreams and
        environments exist by being named.
        """
        found: dict[EntityUid, Entity] = {}
        waiting = list(uids)
        while waiting:
            uid = waiting.pop()
            if uid in found:
                continue
            entity = self.lookup(uid)
            if entity is None:
                continue
            found[uid] = entity
            waiting += entity.parents
            waiting += effective.named_in(entity.attrs.values())
        return found

    def entities(self, kinds: tuple[str, ...]) -> Iterator[Entity]:
        """Yield the registered entities (effective) of these kinds, in order of their names."""
        for uid in sorted(uid for uid in self._entities if uid.kind in kinds):
            found = self.entity(uid)
            if found is not None:
                yield found

    def devices_of(self, owner: EntityUid) -> tuple[EntityUid, ...]:
        """Return the registered devices that belong to a person, in order of their names."""
        if self._owned is None:
            owned: dict[EntityUid, list[EntityUid]] = {}
            for uid, device in self._entities.items():
                if uid.type == _DEVICE and isinstance(person := device.attrs.get("owner"), EntityUid):
                    owned.setdefault(person, []).append(uid)
            self._owned = {person: tuple(sorted(uids)) for person, uids in owned.items()}
        return self._owned.get(owner, ())

    def purposes_of(self, principal: EntityUid) -> frozenset[str]:
        """Return what a principal may use data for: her own purposes and her projects'."""
        found = self.entity(principal)
        purposes = found.attrs.get("purposes") if found is not None else None
        return frozenset(map(str, purposes)) if isinstance(purposes, frozenset) else frozenset()

    # Where a request comes from

    def zone_of(self, ip: str) -> str:
        """Return the name of the narrowest zone an address lies in, else `unknown`."""
        return self._zones.zone_of(ip)

    def place_of(self, ip: str) -> Place:
        """Return where on earth that zone lies, as far as it is known."""
        return self._zones.place_of(ip)

    @property
    def places(self) -> Mapping[str, Place]:
        """Return where zones lie: name -> place."""
        return self._zones.places

    # Credentials: the port `CredentialRegistry`

    @property
    def issuer_jwks(self) -> dict[str, Any]:
        """Return the local issuer's public keys and name, without building `known`."""
        return self._jwks

    def is_active(self, principal: EntityUid) -> bool:
        """Return whether the principal is registered and active; an agent only while its owner is."""
        if not effective.is_principal(principal):
            return False
        found = self.entity(principal)
        if found is None or found.attrs.get("active") is not True:
            return False
        if principal.type != _AGENT:
            return True
        owner = found.attrs.get("owner")
        return isinstance(owner, EntityUid) and owner.type == _USER and self.is_active(owner)

    # Inside

    def _key_entity(self, uid: EntityUid) -> Entity | None:
        key = self._keys.by_id.get(uid.id) if uid.kind == "Key" else None
        return None if key is None else effective.key(uid, key.subject)
