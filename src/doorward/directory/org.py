"""People and assets as code: what an `org.yaml` states (docs: INTERFACE, "People and assets as code").

A file states the whole of each object it names; objects it does not name are none of its business.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import yaml

from doorward.core.errors import DoorwardError, InvalidConfigError
from doorward.core.feed import Known, Place
from doorward.core.identity import DeviceCertificate, IdentityLink
from doorward.core.model import Entity, EntityUid, Value
from doorward.core.values import entity_to_json
from doorward.directory.effective import upstream_of
from doorward.directory.names import is_canonical
from doorward.directory.snapshot import Snapshot
from doorward.directory.vocabulary import ASSETS, ENVIRONMENTS, PACKAGED, Attribute, Kind, Vocabulary
from doorward.directory.yaml_lines import Reader, nearest
from doorward.directory.zones import UNKNOWN_ZONE, network_of

MAX_NAME: Final = 512
# A certificate the file states lives as long as the file says so; TLS itself checks its dates.
UNTIL_REMOVED: Final = datetime(9999, 12, 31, tzinfo=UTC)
# A person's name may hold quotes; only a type in front of them makes it an entity written in full.
_IN_FULL: Final = re.compile(r'[A-Za-z_]\w*(::[A-Za-z_]\w*)*::"')
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_POLE: Final = 90
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_SECTIONS: Final = {
    "users": "User", "services": "Service", "agents": "Agent", "devices": "Device",
    "zones": "", "assets": "", "entities": "", "groups": "Group", "projects": "Project",
}  # fmt: skip
_MEMBERSHIPS: Final = {"roles": "Role", "groups": "Group", "projects": "Project"}
# The keys an object may have besides its kind's attributes.
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "User": frozenset({*_MEMBERSHIPS, "identities"}),
    "Service": frozenset({*_MEMBERSHIPS, "identities"}),
    "Agent": frozenset({*_MEMBERSHIPS, "identities"}),
    "Device": frozenset({*_MEMBERSHIPS, "certificate"}),
    "Group": frozenset({"groups"}),
    "Project": frozenset({"purposes"}),
    **dict.fromkeys(ASSETS, frozenset({"projects", "tags"})),
}


class Reference(msgspec.Struct, frozen=True):
    """Name an entity that must be known, where it is named (`file:line`), and by what."""

    uid: EntityUid
    place: str
    what: str
    # An asset may name an owner who is declared later: nobody gets in by it, and the plan says so.
    later: bool = False


class Org(msgspec.Struct, frozen=True, kw_only=True):
    """What one file states. `entities` carry stated attributes only; `implied` are only mentioned."""

    source: str
    entities: tuple[Entity, ...] = ()
    implied: frozenset[EntityUid] = frozenset()
    identities: tuple[IdentityLink, ...] = ()
    certificates: tuple[DeviceCertificate, ...] = ()
    zones: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    places_of_zones: dict[str, Place] = msgspec.field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    places: dict[EntityUid, str] = msgspec.field(default_factory=dict)


def parse(text: str, source: str, *, vocabulary: Vocabulary = PACKAGED) -> Org:
    """Read a file; raise InvalidConfigError with file:line and the nearest right key.

    `vocabulary` holds the schema's attributes. What only the whole directory can tell (unknown
    owners, circles of groups) is judged by `require_known` and `require_no_circle`.
    """
    return _OrgReader(source, vocabulary).read(text)


def offline_snapshot(org: Org) -> Snapshot:
    """Return a snapshot of this file alone; raise InvalidConfigError for a name it does not declare."""
    uids = {entity.uid for entity in org.entities}
    require_known(org, uids)
    require_no_circle(org, {entity.uid: entity.parents for entity in org.entities})
    entities = (*org.entities, *(Entity(uid) for uid in org.implied - uids))
    return Snapshot.of(
        Known(
            version=1,
            entities=tuple(entity_to_json(entity) for entity in entities),
            identities=org.identities,
            certificates=org.certificates,
            zones=org.zones,
            places=org.places_of_zones,
        )
    )


def require_known(
    org: Org, known: Container[EntityUid], *, going: frozenset[EntityUid] = frozenset()
) -> None:
    """Raise InvalidConfigError for the first name the file uses that nobody declares and must.

    A name that may be declared later must not be one that is `going` right now.
    """
    for reference in org.references:
        if reference.uid not in known and (not reference.later or reference.uid in going):
            peers = [e.uid.id for e in org.entities if e.uid.type == reference.uid.type]
            raise InvalidConfigError(
                f"{reference.place}: {reference.what} is {reference.uid}, which is not known",
                hint=nearest(reference.uid.id, peers) or "Declare it first.",
            )


def undeclared(org: Org, known: Container[EntityUid]) -> tuple[str, ...]:
    """Return a sentence for each name that may be declared later and is not yet."""
    peers = [entity.uid.id for entity in org.entities if entity.uid.kind == "User"]
    return tuple(
        f"{reference.place}: {reference.what} is {reference.uid}, who is not declared yet."
        f" {nearest(reference.uid.id, peers)}".rstrip()
        for reference in org.references
        if reference.later and reference.uid not in known
    )


def require_no_circle(org: Org, parents: Mapping[EntityUid, frozenset[EntityUid]]) -> None:
    """Raise InvalidConfigError if a group lies in itself; `parents` are those of the whole directory."""
    done: set[EntityUid] = set()
    for start in sorted(uid for uid in parents if uid.kind == "Group"):
        path: list[tuple[EntityUid, bool]] = [(start, False)]
        trail: set[EntityUid] = set()
        while path:
            uid, leaving = path.pop()
            if leaving:
                trail.discard(uid)
                done.add(uid)
            elif uid in trail:
                place = org.places.get(uid) or org.places.get(start) or org.source
                raise InvalidConfigError(
                    f"{place}: group `{uid.id}` lies in itself", hint="Take one of the nestings out."
                )
            elif uid not in done:
                trail.add(uid)
                path.append((uid, True))
                path += [(above, False) for above in parents.get(uid, ()) if above.kind == "Group"]


class _Stated(msgspec.Struct):
    attrs: dict[str, Value] = msgspec.field(default_factory=dict)
    parents: set[EntityUid] = msgspec.field(default_factory=set)
    tags: dict[str, str] = msgspec.field(default_factory=dict)


class _OrgReader(Reader):
    def __init__(self, source: str, vocabulary: Vocabulary) -> None:
        super().__init__(source)
        self._vocabulary = vocabulary
        self._entities: dict[EntityUid, Entity] = {}
        self._places: dict[EntityUid, str] = {}
        self._implied: set[EntityUid] = set()
        self._references: list[Reference] = []
        self._links: dict[tuple[str, str], IdentityLink] = {}
        self._certificates: dict[str, DeviceCertificate] = {}
        self._zones: dict[str, tuple[str, ...]] = {}
        self._places_of_zones: dict[str, Place] = {}

    def read(self, text: str) -> Org:
        root = self.root(text)
        for key, key_node, node in self.pairs(root, "the file") if root is not None else ():
            if key not in _SECTIONS:
                self.unknown(key_node, key, what="the file", allowed=_SECTIONS)
            for name, name_node, value in self.pairs(node, f"`{key}`"):
                if key == "zones":
                    self._zone(name, name_node, value)
                elif key == "entities":
                    self._own(name, name_node, value)
                else:
                    self._object(self._named(name_node, name, _SECTIONS[key]), name_node, value)
        return Org(
            source=self.source,
            entities=tuple(self._entities.values()),
            implied=frozenset(self._implied),
            identities=tuple(self._links.values()),
            certificates=tuple(self._certificates.values()),
            zones=self._zones,
            places_of_zones=self._places_of_zones,
            references=tuple(self._references),
            places=self._places,
        )

    def _named(self, node: yaml.Node, name: str, kind: str) -> EntityUid:
        """Read `dana` or `User::"dana"`; an asset (no kind given) is always written in full."""
        short = kind and _IN_FULL.match(name) is None
        uid = EntityUid.of(kind, name) if short else self._parsed(node, name)
        if uid.kind not in ((kind,) if kind else ASSETS):
            expected = f"a {kind}" if kind else f"one of {', '.join(ASSETS)}"
            self.fail(node, f"`{name}` is not {expected}", nearest(uid.kind, (kind,) if kind else ASSETS))
        if len(uid.id) > MAX_NAME or not uid.id or not uid.id.isprintable():
            self.fail(node, f"a name must be printable text of 1 to {MAX_NAME} characters")
        if uid.kind in ASSETS and not is_canonical(uid.id):
            self.fail(node, f"{uid} has an empty, `.` or `..` segment", 'Write Dataset::"upstream/name".')
        return uid

    def _own(self, name: str, name_node: yaml.Node, node: yaml.Node) -> None:
        """Read an entity of a type that the installation's own schema adds: attributes and `parents`."""
        uid = self._parsed(name_node, name)
        if uid.kind != uid.type:
            self.fail(
                name_node, f"`{name}` is of one of Doorward's own types", "State it in its own section."
            )
        if uid in self._entities:
            self.fail(name_node, f"{uid} is declared twice", f"The first is at {self._places[uid]}.")
        attrs: dict[str, Value] = {}
        parents: set[EntityUid] = set()
        for key, _, value in self.pairs(node, str(uid)):
            if key == "parents":
                listed = self.items(value, f"`parents` of {uid}")
                parents = {self._parsed(item, self.name(item, "a parent")) for item in listed}
            else:
                attrs[key] = self._plain(value, f"`{key}` of {uid}")
        self._places[uid] = self.place(name_node)
        self._entities[uid] = Entity(uid, attrs, frozenset(parents))

    def _plain(self, node: yaml.Node, what: str) -> Value:
        """Read a value whose type only the schema knows: a list of texts, or what YAML says it is."""
        match str(node.tag).rpartition(":")[2]:
            case "seq":
                return self._strings(node, what)
            case "bool":
                return self.boolean(node, what)
            case "int":
                return self.whole(node, what, None)
        return self.text(node, what)

    def _parsed(self, node: yaml.Node, name: str) -> EntityUid:
        try:
            return EntityUid.parse(name)
        except DoorwardError as error:
            self.fail(node, error.message, 'Write a kind and a quoted name: Dataset::"store/training".')

    def _object(self, uid: EntityUid, name_node: yaml.Node, node: yaml.Node) -> None:
        if uid in self._entities:
            self.fail(name_node, f"{uid} is declared twice", f"The first is at {self._places[uid]}.")
        attributes = self._vocabulary.get(uid.kind, {})
        stated = _Stated()
        for key, key_node, value in self.pairs(node, str(uid)):
            what = f"`{key}` of {uid}"
            if key in attributes:
                later = uid.kind in ASSETS and key == "owner"
                stated.attrs[key] = self._value(value, what, attributes[key], later=later)
            elif key in _KEYS[uid.kind]:
                self._extra(uid, key, value, stated)
            else:
                self.unknown(key_node, key, what=str(uid), allowed={*attributes, *_KEYS[uid.kind]})
        for key, attribute in attributes.items():
            if attribute.required and key not in stated.attrs:
                self.fail(name_node, f"{uid} needs `{key}`", f"Say {attribute.kind.value}.")
        if uid.kind in ASSETS:
            self._implied.add(upstream_of(uid))
        self._places[uid] = self.place(name_node)
        self._entities[uid] = Entity(uid, stated.attrs, frozenset(stated.parents), stated.tags)

    def _extra(self, uid: EntityUid, key: str, node: yaml.Node, stated: _Stated) -> None:
        """Read a key that is no attribute of the kind: memberships, tags, credentials."""
        what = f"`{key}` of {uid}"
        match key:
            case "purposes":
                stated.attrs[key] = self._strings(node, what)
            case "tags":
                for name, _, value in self.pairs(node, what):
                    stated.tags[name] = self.text(value, f"tag `{name}` of {uid}")
            case "identities":
                self._identities(uid, node)
            case "certificate":
                self._certificate(uid, node, what)
            case _:
                stated.parents |= self._members(node, what, _MEMBERSHIPS[key])

    def _value(self, node: yaml.Node, what: str, attribute: Attribute, *, later: bool) -> Value:
        match attribute.kind:
            case Kind.BOOL:
                return self.boolean(node, what)
            case Kind.LONG:
                return self.whole(node, what, attribute.bounds)
            case Kind.STRING:
                return self.text(node, what)
            case Kind.STRINGS:
                return self._strings(node, what)
            case Kind.DATETIME:
                return self.moment(node, what)
            case Kind.ENTITY:
                return self._entity(node, what, attribute.entity, later=later)

    def _entity(self, node: yaml.Node, what: str, kind: str, *, later: bool) -> EntityUid:
        uid = self._named(node, self.name(node, what), kind)
        if kind == "Environment":
            if uid.id not in ENVIRONMENTS:
                self.fail(node, f"{what} is `{uid.id}`, no environment", nearest(uid.id, ENVIRONMENTS))
        else:
            self._references.append(Reference(uid, self.place(node), what, later))
        return uid

    def _strings(self, node: yaml.Node, what: str) -> frozenset[Value]:
        return frozenset(self.text(item, f"an item of {what}") for item in self.items(node, what))

    def _members(self, node: yaml.Node, what: str, kind: str) -> set[EntityUid]:
        names = [(item, self.name(item, f"an item of {what}")) for item in self.items(node, what)]
        uids = {self._named(item, name, kind) for item, name in names}
        self._implied |= uids
        return uids

    def _identities(self, uid: EntityUid, node: yaml.Node) -> None:
        for item in self.items(node, f"`identities` of {uid}"):
            found: dict[str, str] = {}
            for key, key_node, value in self.pairs(item, "an identity"):
                if key not in {"issuer", "subject"}:
                    self.unknown(key_node, key, what="an identity", allowed=("issuer", "subject"))
                found[key] = self.name(value, f"`{key}`")
            if len(found) != len(("issuer", "subject")):
                self.fail(item, f"an identity of {uid} needs `issuer` and `subject`")
            pair = found["issuer"], found["subject"]
            if pair in self._links:
                self.fail(item, f"identity {pair} is already linked to {self._links[pair].principal}")
            self._links[pair] = IdentityLink(*pair, uid)

    def _certificate(self, uid: EntityUid, node: yaml.Node, what: str) -> None:
        fingerprint = self.name(node, what).removeprefix("sha256:").replace(":", "").lower()
        if _FINGERPRINT.fullmatch(fingerprint) is None:
            self.fail(node, f"{what} must be `sha256:` and 64 hex digits")
        if fingerprint in self._certificates:
            other = self._certificates[fingerprint].device
            self.fail(node, f"{what} is already that of {other}", "A certificate proves one device.")
        self._certificates[fingerprint] = DeviceCertificate(fingerprint, uid, UNTIL_REMOVED)

    def _zone(self, name: str, name_node: yaml.Node, node: yaml.Node) -> None:
        if name == UNKNOWN_ZONE or not name.isprintable():
            self.fail(name_node, f"a zone cannot be called `{name}`", "It means: in no zone.")
        if isinstance(node, yaml.MappingNode):
            node = self._placed(name, node)
        networks: list[str] = []
        for item in self.items(node, f"zone `{name}`"):
            text = self.name(item, f"an item of zone `{name}`")
            try:
                network = str(network_of(text))
            except ValueError as error:
                self.fail(item, f"zone `{name}`: {error}", "Write a network: 10.0.0.0/8.")
            for other, theirs in self._zones.items():
                if network in theirs:
                    self.fail(item, f"network {network} lies in zone `{other}` already")
            networks.append(network)
        self._zones[name] = tuple(sorted(set(networks)))

    def _placed(self, name: str, node: yaml.Node) -> yaml.Node:
        """Read where a zone lies, and return the node of its networks."""
        allowed = ("networks", "country", "coordinates")
        given = {key: value for key, _, value in self.pairs(node, f"zone `{name}`")}
        for key, key_node, _ in self.pairs(node, f"zone `{name}`"):
            if key not in allowed:
                self.unknown(key_node, key, what=f"zone `{name}`", allowed=allowed)
        if "networks" not in given:
            self.fail(node, f"zone `{name}` has no `networks`", "Write networks: [10.0.0.0/8].")
        country = self.name(given["country"], "`country`") if "country" in given else None
        if country is not None and _COUNTRY.fullmatch(country) is None:
            self.fail(given["country"], f"`{country}` is no country", "Write two capital letters: DE.")
        north = east = None
        if "coordinates" in given:
            north, east = self._coordinates(given["coordinates"])
        self._places_of_zones[name] = Place(country, north, east)
        return given["networks"]

    def _coordinates(self, node: yaml.Node) -> tuple[float, float]:
        hint = "Write degrees north and east: [52.52, 13.405]."
        try:
            north, east = (float(self.name(item, "a degree")) for item in self.items(node, "`coordinates`"))
        except ValueError:
            self.fail(node, "`coordinates` are two numbers", hint)
        if not (abs(north) <= _POLE and abs(east) <= 2 * _POLE):
            self.fail(node, "`coordinates` lie outside the earth", hint)
        return north, east
