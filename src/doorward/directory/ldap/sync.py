"""Make a plan of what was read: who joins, moves and leaves, with a brake on too many leaving at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from doorward.core.errors import ConflictError, InvalidRequestError
from doorward.core.model import EntityUid, Value
from doorward.core.provisioning import Provisioned
from doorward.directory.ldap.entries import Person
from doorward.directory.rules import require_name

if TYPE_CHECKING:
    from doorward.directory.administration import Directory
    from doorward.directory.draft import Draft, ProvisionPlan
    from doorward.directory.ldap.reading import Reading
    from doorward.directory.rules import Rules

# So many may always leave at once: a small directory is not held up by a small share.
_FEW: Final = 5
_TOLD: Final = 5


class Brake(msgspec.Struct, frozen=True):
    """Bound what one reading may take away, as a share of what there is; `off` once, when confirmed."""

    share: float
    off: bool = False

    def holds(self, leaving: int, there: int) -> bool:
        """Return whether so many are too many."""
        return not self.off and leaving > max(_FEW, self.share * there)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, how many it did not take out, and in words what it left alone."""

    plan: ProvisionPlan
    held_back: int = 0
    problems: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Return the problems in one line."""
        more = len(self.problems) - _TOLD
        return "; ".join((*self.problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])))


def outcome_of(  # noqa: PLR0913 -- what a plan depends on
    reading: Reading,
    directory: Directory,
    rules: Rules,
    brake: Brake,
    now: datetime,
    *,
    barred: frozenset[EntityUid] = frozenset(),
    leaving_only: bool = False,
) -> Outcome:
    """Return what a reading comes to. `barred` principals get nothing new; raise ConflictError as a draft."""
    work = _Work(reading, directory, rules, now, barred)
    work.leave(brake)
    if not leaving_only:
        work.take_in()
        work.assemble(brake)
    return Outcome(
        plan=work.draft.plan(),
        held_back=work.held_back,
        problems=(*work.problems, *reading.left_out),
    )


class _Work:
    def __init__(
        self,
        reading: Reading,
        directory: Directory,
        rules: Rules,
        now: datetime,
        barred: frozenset[EntityUid],
    ) -> None:
        self.draft: Draft = directory.draft(rules)
        self.problems: list[str] = []
        self.held_back = 0
        self._reading, self._rules, self._now, self._barred = reading, rules, now, barred
        self._registry = directory.registry
        self._known = {one.id: one for one in self._registry.of_source(rules.source)}
        self._gone: set[str] = set()
        self._new = False

    # Who leaves

    def leave(self, brake: Brake) -> None:
        """Take out who is gone, disabled or expired, unless that are too many to be true."""
        present = self._reading.present
        gone = [one for one in self._known.values() if present is not None and one.id not in present]
        ended = [one for one in map(self._ended, self._known.values()) if one is not None]
        leaving = {one.id for one in (*gone, *(one for one, _ in ended))}
        if brake.holds(len(leaving), len(self._known)):
            self.held_back = len(leaving)
            self.problems.append(
                f"{len(leaving)} of {len(self._known)} would leave at once: held back until confirmed"
            )
            return
        for one in gone:
            self._gone.add(one.id)
            self.draft.remove(one)
        for one, attrs in ended:
            if one.id not in self._gone:
                self.draft.change(replace(one, modified=self._now, version=one.version + 1), attrs)

    def _ended(self, one: Provisioned) -> tuple[Provisioned, dict[str, Value]] | None:
        """Return somebody who was active and is not any more, as she then is."""
        said = self._registry.stated(one.uid).get(self._rules.source)
        if one.kind != "User" or said is None or said.attrs.get("active") is not True:
            return None
        read = self._people.get(one.id)
        disabled = read is not None and read.attrs["active"] is False
        if not disabled and not _expired(one, read, self._now):
            return None
        return one, {**said.attrs, "active": False}

    @property
    def _people(self) -> Mapping[str, Person]:
        if not hasattr(self, "_people_by_id"):
            self._people_by_id = {one.id: one for one in self._reading.people}
        return self._people_by_id

    # Who joins, and what is said of whom

    def take_in(self) -> None:
        """Take in people and groups as they were read."""
        for person in self._reading.people:
            document: dict[str, Any] = {"dn": person.dn}
            if person.expires is not None:
                document["expires"] = person.expires.isoformat()
            attrs = {**person.attrs, "active": self._active(person)}
            self._take("User", person.id, person.name, document, attrs, external_id=person.subject)
        for group in self._reading.groups:
            if self._rules.may_bring_group(group.name):
                document = {"dn": group.dn, "members": list(group.members)}
                self._take("Group", group.id, group.name, document, {})

    def _active(self, person: Person) -> bool:
        known = self._known.get(person.id)
        said = None if known is None else self._registry.stated(known.uid).get(self._rules.source)
        was = said is not None and said.attrs.get("active") is True
        if self.held_back and was:
            return True
        return person.attrs["active"] is True and not _expired(None, person, self._now)

    def _take(  # noqa: PLR0913, PLR0917 -- what is said of an object
        self,
        kind: str,
        identifier: str,
        name: str,
        document: dict[str, Any],
        attrs: dict[str, Value],
        external_id: str = "",
    ) -> None:
        known = self._known.get(identifier)
        if known is not None and known.uid in self._barred:
            return
        fields = {
            "name": name,
            "external_id": external_id,
            "link": self._rules.link_of(name=name, external_id=external_id) if kind == "User" else None,
            "document": document,
        }
        try:
            require_name(name)
            if known is None:
                self._join(kind, identifier, fields, attrs)
            elif self._differs(known, fields, attrs):
                wanted = replace(known, **fields, modified=self._now, version=known.version + 1)
                self.draft.change(wanted, attrs)
        except (ConflictError, InvalidRequestError) as error:
            self.problems.append(f"{name}: {error.message}")

    def _join(self, kind: str, identifier: str, fields: dict[str, Any], attrs: dict[str, Value]) -> None:
        wanted = Provisioned(
            source=self._rules.source,
            kind=kind,
            id=identifier,
            uid=EntityUid.of(kind, fields["name"]),
            created=self._now,
            modified=self._now,
            **fields,
        )
        if EntityUid.of(kind, self._rules.entity_name(wanted.name)) in self._barred:
            return
        self.draft.add(wanted, attrs)
        self._new = True

    def _differs(self, known: Provisioned, fields: dict[str, Any], attrs: dict[str, Value]) -> bool:
        said = self._registry.stated(known.uid).get(self._rules.source)
        before = {} if said is None else {name: v for name, v in said.attrs.items() if name != "clearance"}
        return before != attrs or any(getattr(known, name) != value for name, value in fields.items())

    # Who lies in what

    def assemble(self, brake: Brake) -> None:
        """Put people and groups into groups; a group that would lie in itself is left out of itself."""
        read = {one.id for one in self._reading.groups}
        changed = self._new or self._reading.whole or bool(self._gone)
        if not changed and not read:
            return
        objects = self._objects()
        groups = [one for one in objects if one.kind == "Group" and (changed or one.id in read)]
        uids = _names_of(objects)
        wanted = {
            group.uid: self._members_of(group, uids) for group in sorted(groups, key=lambda one: one.id)
        }
        self._require_no_collapse(wanted, brake)
        self._cut_circles(wanted)
        for group in groups:
            if wanted[group.uid] != self._before(group.uid):
                self.draft.members(group, frozenset(wanted[group.uid]))

    def _objects(self) -> list[Provisioned]:
        ids = {*self._known, *(one.id for one in self._reading.objects)}
        found = (
            self.draft.object((self._rules.source, kind, one)) for one in ids for kind in ("User", "Group")
        )
        return [one for one in found if one is not None and one.gone is None]

    def _members_of(self, group: Provisioned, uids: Mapping[str, EntityUid]) -> set[EntityUid]:
        members = {uids[name] for name in group.document.get("members", ()) if name in uids}
        before = self._before(group.uid)
        return (members - self._barred) | (before & self._barred)

    def _before(self, group: EntityUid) -> frozenset[EntityUid]:
        return self._registry.members(self._rules.source, group)

    def _require_no_collapse(self, wanted: dict[EntityUid, set[EntityUid]], brake: Brake) -> None:
        """Keep memberships if too many would end at once: an answer that hides members looks like that."""
        gone = {self._known[one].uid for one in self._gone}
        before = {group: self._before(group) - gone for group in wanted}
        there, lost = sum(map(len, before.values())), sum(len(before[g] - wanted[g]) for g in wanted)
        if brake.holds(lost, there):
            self.held_back += lost
            self.problems.append(
                f"{lost} of {there} memberships would end at once: held back until confirmed"
            )
            for group in wanted:
                wanted[group] |= before[group]

    def _cut_circles(self, wanted: dict[EntityUid, set[EntityUid]]) -> None:
        """Take out memberships that close a circle, in an order that is always the same."""
        inside = {group: {uid for uid in members if uid.kind == "Group"} for group, members in wanted.items()}
        known = {one.uid: one for one in self._registry.of_source(self._rules.source, "Group")}
        for group in known:
            inside.setdefault(group, {uid for uid in self._before(group) if uid.kind == "Group"})
        for group in sorted(wanted):
            for member in sorted(inside[group]):
                if _reaches(member, group, inside):
                    inside[group].discard(member)
                    wanted[group].discard(member)
                    self.problems.append(f"the group `{group.id}` lies in itself, by way of `{member.id}`")


def _reaches(start: EntityUid, goal: EntityUid, inside: Mapping[EntityUid, set[EntityUid]]) -> bool:
    seen: set[EntityUid] = set()
    waiting = [start]
    while waiting:
        group = waiting.pop()
        if group == goal:
            return True
        if group not in seen:
            seen.add(group)
            waiting += inside.get(group, ())
    return False


def _names_of(objects: Iterable[Provisioned]) -> dict[str, EntityUid]:
    """Return the entities by what groups may call them: a distinguished name, or a user's own."""
    found: dict[str, EntityUid] = {}
    for one in objects:
        found[str(one.document.get("dn", ""))] = one.uid
        if one.kind == "User":
            found[one.name.casefold()] = one.uid
    return found


def _expired(known: Provisioned | None, read: Person | None, now: datetime) -> bool:
    if read is not None:
        return read.expires is not None and read.expires <= now
    text = known.document.get("expires") if known is not None else None
    return text is not None and datetime.fromisoformat(str(text)) <= now
