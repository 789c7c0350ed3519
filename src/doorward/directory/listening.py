"""What sources outside say: taken in, merged with what others say, and renewed or aged."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from doorward.core.provisioning import ORG, Statement, Vouched
from doorward.core.values import entity_to_json
from doorward.directory.draft import Draft, MovedOnError, ProvisionPlan
from doorward.directory.statements import merged, of_entity, shown
from doorward.store.provisioning import ProvisioningChange

if TYPE_CHECKING:
    from doorward.core.accounts import AccountRepository
    from doorward.core.clock import Clock
    from doorward.core.feed import Delta
    from doorward.core.model import Entity, EntityUid
    from doorward.directory.plan import Held
    from doorward.directory.registry import Registry
    from doorward.directory.rules import Rules


class Listening:
    """The part of `Directory` that listens to sources outside."""

    _held: Held
    _clock: Clock
    _accounts: AccountRepository
    _changing: threading.RLock

    def __init__(self) -> None:
        """Know of no source that has fallen silent."""
        self._silent: frozenset[str] = frozenset()

    @property
    def registry(self) -> Registry:
        """Return what sources outside provision and state, as it is now."""
        return self._held.registry

    def sources(self, uid: EntityUid) -> dict[str, Any]:
        """Return who states what of an entity and since when; empty if only files ever spoke of it."""
        return shown(self.registry.stated(uid), self._clock.now(), self._held.vouched)

    def draft(self, rules: Rules) -> Draft:
        """Begin a change of one source, from what is held now."""
        return Draft(self._held, rules, self._clock.now())

    def provision(self, wanted: ProvisionPlan, *, operator: str) -> None:
        """Carry out a source's plan; raise MovedOnError if the directory changed since it was made."""
        with self._changing:
            if wanted.plan.delta.version != self._held.snapshot.version + 1:
                raise MovedOnError("the directory changed meanwhile", hint="Try again.")
            if not wanted.empty:
                self._commit(
                    wanted.plan.delta,
                    operator,
                    declared=wanted.plan.declared,
                    certificates_revoked=wanted.certificates_revoked,
                    provisioning=self._sparing_the_last(wanted.change),
                )

    def state(self, statement: Statement, *, operator: str) -> bool:
        """Keep what a source says of one known entity, beside what others say; raise NotFoundError.

        Returns False, and changes nothing, for what the source said before its last word.
        """
        with self._changing:
            uid = statement.uid
            self._require(uid, right_kind=True)
            held = self.registry.stated(uid).get(statement.source)
            if held is not None and (held.seen > statement.seen or held == statement):
                return False
            statements, said = self._beside(statement)
            after = merged(uid, statements, self._clock.now(), self._held.vouched)
            changed = () if after == self._held.snapshot.stated[uid] else (entity_to_json(after),)
            change = ProvisioningChange(statements=tuple(said))
            self._commit(self._delta(entities=changed), operator, provisioning=change)
            return True

    def foreseen(self, statement: Statement) -> Entity:
        """Return what an entity would be if a source said this of it; raise NotFoundError."""
        with self._changing:
            self._require(statement.uid, right_kind=True)
            statements, _ = self._beside(statement)
            return merged(statement.uid, statements, self._clock.now(), self._held.vouched)

    def _beside(self, statement: Statement) -> tuple[dict[str, Statement], list[Statement]]:
        """Return everything said of an entity with this among it, and what of it is to be kept."""
        uid = statement.uid
        statements = {**self.registry.stated(uid), statement.source: statement}
        said = [statement]
        if ORG not in statements and self.registry.object_of(uid) is None:
            said.append(of_entity(self._held.snapshot.stated[uid]))
            statements[ORG] = said[-1]
        return statements, said

    def vouch(self, source: str, vouched: Vouched) -> None:
        """Note when a followed source answered whole: what it said is as fresh as that."""
        with self._changing:
            before = self._held.vouched.get(source)
            now = self._clock.now()
            self._held = replace(self._held, vouched={**self._held.vouched, source: vouched})
            if before is None or before.stale(now) != vouched.stale(now):
                self._renew(one.uid for one in self.registry.of_source(source))

    def age(self) -> int:
        """Let what nobody vouches for any more take its most restrictive value, or come back.

        Returns how many entities changed.
        """
        with self._changing:
            now, silent = self._clock.now(), self._silent
            self._silent = frozenset(s for s, vouched in self._held.vouched.items() if vouched.stale(now))
            changed = [one.uid for source in self._silent ^ silent for one in self.registry.of_source(source)]
            return self._renew((*changed, *self.registry.aging))

    def _renew(self, uids: Iterable[EntityUid]) -> int:
        """Put together again what several sources state of entities; keep those that come out otherwise."""
        now, held = self._clock.now(), self._held
        again = [
            merged(uid, held.registry.stated(uid), now, held.vouched)
            for uid in uids
            if uid in held.snapshot.stated and held.registry.stated(uid)
        ]
        changed = [entity for entity in again if held.snapshot.stated[entity.uid] != entity]
        if changed:
            self._commit(self._delta(entities=tuple(map(entity_to_json, changed))), "age")
        return len(changed)

    def _sparing_the_last(self, change: ProvisioningChange) -> ProvisioningChange:
        """Keep the passkeys of the last who have any: without one, a new link makes a new admin."""
        holders = self._accounts.holders() if change.forgotten else frozenset()
        return replace(change, forgotten=()) if holders and holders <= {*change.forgotten} else change

    # What the directory itself does

    def _commit(self, delta: Delta, operator: str, **more: Any) -> None:
        raise NotImplementedError

    def _delta(self, **fields: Any) -> Delta:
        raise NotImplementedError

    def _require(self, uid: EntityUid, right_kind: bool) -> None:  # noqa: FBT001 -- as `Directory` has it
        raise NotImplementedError
