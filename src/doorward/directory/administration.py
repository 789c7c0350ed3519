"""Change what is known: one place, one change at a time, durable before anybody hears of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import replace

from doorward.core.errors import ConflictError, InvalidRequestError, NotFoundError
from doorward.core.feed import Delta, Known
from doorward.core.identity import SignOut
from doorward.core.model import Entity, EntityUid
from doorward.core.provisioning import Vouched
from doorward.core.values import entity_to_json, uid_from_json
from doorward.directory import plan as planning
from doorward.directory.duties import require_apart
from doorward.directory.effective import is_asset, is_principal
from doorward.directory.expected import require_expected
from doorward.directory.fitting import Fitting
from doorward.directory.listening import Listening
from doorward.directory.plan import Held, Plan
from doorward.directory.registry import Registry
from doorward.directory.snapshot import Snapshot
from doorward.directory.vocabulary import ASSETS, ENVIRONMENTS, environment
from doorward.store.history import Entry, Lowering

if TYPE_CHECKING:
    from doorward.core.accounts import AccountRepository
    from doorward.core.clock import Clock
    from doorward.core.identity import DeviceCertificate, IdentityLink, KeyRecord
    from doorward.core.ids import IdSource
    from doorward.core.sign_ins import SignInRepository
    from doorward.directory.org import Org
    from doorward.store.opened import Store
    from doorward.store.provisioning import SqlSources

PEOPLE = ("User", "Service", "Agent")
_ITSELF = "doorward"

log = structlog.get_logger()


class Directory(Listening):
    """Hold the current snapshot, write changes to the store, tell subscribers. Thread-safe.

    A change is in the store before `snapshot` shows it and before a subscriber hears of it;
    subscribers hear every change once, in order, and must return quickly.
    """

    def __init__(self, store: Store, clock: Clock, ids: IdSource) -> None:
        """Read the state from an open store."""
        super().__init__()
        self._history = store.history
        self._accounts: AccountRepository = store.accounts
        self._sign_ins: SignInRepository = store.sign_ins
        self._sources = store.sources
        self._clock = clock
        self._ids = ids
        self._changing = threading.RLock()
        self._subscribers: list[Callable[[Delta], None]] = []
        self._fitting: Fitting | None = None
        loaded = store.history.load(clock.now())
        self._held = Held(
            snapshot=Snapshot.of(loaded.known),
            declared=loaded.declared,
            certificates_revoked=loaded.certificates_revoked,
            registry=Registry.of(loaded.provisioned, loaded.statements),
            vouched=_vouched(store),
        )

    @property
    def accounts(self) -> AccountRepository:
        """Return the console's links, passkeys and sessions."""
        return self._accounts

    @property
    def kept_sources(self) -> SqlSources:
        """Return what is kept of the directories that are followed."""
        return self._sources

    @property
    def sign_ins(self) -> SignInRepository:
        """Return people's sign-ins through clients."""
        return self._sign_ins

    @property
    def snapshot(self) -> Snapshot:
        """Return what is known now."""
        return self._held.snapshot

    def known(self) -> Known:
        """Return the whole state, as gateways receive it first (keys without derived secrets)."""
        return self._held.snapshot.known

    def subscribe(self, callback: Callable[[Delta], None]) -> Callable[[], None]:
        """Call `callback` with each later change, in order; return what ends that."""
        with self._changing:
            self._subscribers.append(callback)

        def unsubscribe() -> None:
            with self._changing:
                self._subscribers.remove(callback)

        return unsubscribe

    # The schema

    @property
    def schema(self) -> str | None:
        """Return the schema that everything known fits; None before `conform`."""
        return None if self._fitting is None else self._fitting.text

    def conform(self, schema: str) -> None:
        """Hold everything known, and every later change, to a schema.

        Raises InvalidPolicyError when something known does not fit; then the schema before it stays.
        """
        with self._changing:
            if schema != self.schema:
                fitting = Fitting(schema)
                fitting.require_all(self.snapshot)
                self._fitting = fitting

    # People and assets as code

    def plan(
        self,
        org: Org,
        prune: bool = False,  # noqa: FBT001, FBT002 -- the two-argument form others call
        *,
        schema: str | None = None,
    ) -> Plan:
        """Return what applying the file would change; raise InvalidConfigError or ConflictError.

        With `schema` it must fit that one, which is to rule before the file is applied.
        """
        plan = planning.make(org, self._held, self._clock.now(), prune=prune)
        self._keep_someone(plan)
        fitting = self._fitting if schema is None else Fitting(schema)
        if fitting is not None and plan.items:
            after = self.snapshot.with_delta(plan.delta)
            fitting.require(after, _stated(plan.delta), org.places)
        return plan

    def apply(
        self,
        org: Org,
        prune: bool = False,  # noqa: FBT001, FBT002 -- as `plan`
        operator: str = _ITSELF,
        *,
        expected: Plan | None = None,
    ) -> Plan:
        """Apply a file in one transaction and return what was done; nothing to do changes nothing.

        With `expected`, raise ConflictError if the directory changed since that plan was made.
        """
        with self._changing:
            require_expected(self.snapshot.version)
            plan = self.plan(org, prune)
            if expected is not None and plan != expected:
                raise ConflictError(
                    "the directory changed while the plan was shown", hint="Run the command again."
                )
            if plan.items:
                self._commit(plan.delta, operator, declared=plan.declared, provisioning=plan.change)
            return plan

    # Keys, certificates, identities, tokens

    def add_key(self, key: KeyRecord, *, operator: str = _ITSELF) -> None:
        """Keep a new key (its hash) for a known subject; raise NotFoundError or ConflictError."""
        with self._changing:
            self._require_new(key)
            self._commit(self._delta(keys=(replace(key, s3_secret=None),)), operator)

    def revoke_key(self, key_id: str, *, operator: str = _ITSELF) -> KeyRecord:
        """Revoke a key at once and return what it was; raise NotFoundError."""
        with self._changing:
            key = self.snapshot.keys.get(key_id)
            if key is None:
                raise NotFoundError(f"there is no key `{key_id}`", hint="See `doorward key list`.")
            self._commit(self._delta(keys_removed=(key_id,)), operator)
            return key

    def rotate_key(
        self, key_id: str, replacement: KeyRecord, *, ends: datetime, operator: str = _ITSELF
    ) -> None:
        """Put a key in another's place: the old one works until `ends` at most, in one change.

        Raises NotFoundError, or ConflictError if the old one was replaced already.
        """
        with self._changing:
            old = self.snapshot.keys.get(key_id)
            if old is None:
                raise NotFoundError(f"there is no key `{key_id}`", hint="See `doorward key list`.")
            if old.successor:
                raise ConflictError(
                    f"key `{key_id}` was replaced by `{old.successor}`", hint="Rotate that one."
                )
            self._require_new(replacement)
            expires = ends if old.expires is None else min(old.expires, ends)
            ending = replace(old, expires=expires, successor=replacement.id, s3_secret=None)
            self._commit(self._delta(keys=(ending, replace(replacement, s3_secret=None))), operator)

    def keys(self, subject: EntityUid | None = None) -> list[KeyRecord]:
        """Return the unrevoked keys, of one subject or all, oldest first."""
        keys = sorted(self.snapshot.keys.values(), key=lambda key: (key.created, key.id))
        return [key for key in keys if subject is None or key.subject == subject]

    def bind_certificate(self, certificate: DeviceCertificate, *, operator: str = _ITSELF) -> None:
        """Bind a certificate to a known device; raise NotFoundError, or ConflictError if it is not free."""
        with self._changing:
            self._require(certificate.device, certificate.device.kind == "Device")
            taken = certificate.fingerprint in self.snapshot.certificates
            if taken or certificate.fingerprint in self._held.certificates_revoked:
                raise ConflictError("this certificate is bound or was revoked", hint="Issue a new one.")
            self._commit(self._delta(certificates=(certificate,)), operator)

    def revoke_certificates(self, device: EntityUid, *, operator: str = _ITSELF) -> list[str]:
        """Revoke every certificate of a device, for good, and return their fingerprints."""
        with self._changing:
            bound = self.snapshot.certificates.values()
            gone = tuple(sorted(c.fingerprint for c in bound if c.device == device))
            if gone:
                self._commit(
                    self._delta(certificates_removed=gone), operator, certificates_revoked=frozenset(gone)
                )
            return list(gone)

    def link_identity(self, link: IdentityLink, *, operator: str = _ITSELF) -> None:
        """Link (issuer, subject) to a known principal; raise NotFoundError, or ConflictError if taken."""
        with self._changing:
            self._require(link.principal, is_principal(link.principal))
            owner = self.snapshot.principal_of(link.issuer, link.subject)
            if owner is not None and owner != link.principal:
                raise ConflictError(f"this identity is linked to {owner}", hint="Unlink it there first.")
            if owner is None:
                self._commit(self._delta(identities=(link,)), operator)

    def unlink_identity(self, issuer: str, subject: str, *, operator: str = _ITSELF) -> None:
        """Take a link away at once; raise NotFoundError."""
        with self._changing:
            if self.snapshot.principal_of(issuer, subject) is None:
                raise NotFoundError(f"no identity ({issuer}, {subject}) is linked")
            self._commit(self._delta(identities_removed=((issuer, subject),)), operator)

    def revoke_token(self, jti: str, expires: datetime, *, operator: str = _ITSELF) -> None:
        """Revoke a token of the local issuer until it would have ended anyway; twice is no error."""
        with self._changing:
            if not self.snapshot.token_revoked(jti):
                self._commit(self._delta(tokens_revoked=(jti,)), operator, tokens=((jti, expires),))

    def sign_out(
        self, principal: EntityUid, *, before: datetime, mfa_only: bool = False, operator: str = _ITSELF
    ) -> SignOut:
        """End what a known principal signed in with before a moment, or only the MFA of it.

        A moment that is to come counts as now: nobody is shut out in advance. Raises NotFoundError.
        """
        with self._changing:
            self._require(principal, is_principal(principal))
            moment = min(before, self._clock.now())
            wanted = SignOut(principal, None if mfa_only else moment, moment if mfa_only else None)
            held = self.snapshot.sign_out_of(principal)
            out = wanted.joined(held)
            if out != held:
                self._commit(self._delta(sign_outs=(out,)), operator)
            return out

    # Assets and upstreams

    def lower(self, asset: EntityUid, *, reason: str, operator: str) -> None:
        """Put on record that an asset may be less sensitive than what covers it."""
        with self._changing:
            self._require(asset, is_asset(asset))
            if not reason.strip():
                raise InvalidRequestError("lowering an asset needs a reason", hint="Say why.")
            note = Lowering(str(asset), operator, reason, self._clock.now())
            lowered = tuple(sorted(self.snapshot.lowered | {str(asset)}))
            self._commit(self._delta(lowered=lowered), operator, lowerings=(note,))

    def raise_again(self, asset: EntityUid, *, operator: str) -> None:
        """End a lowering: the asset is again at least as sensitive as what covers it."""
        with self._changing:
            lowered = self.snapshot.lowered - {str(asset)}
            if lowered != self.snapshot.lowered:
                self._commit(self._delta(lowered=tuple(sorted(lowered))), operator)

    def register_upstreams(self, environments: Mapping[str, str]) -> None:
        """Make the configured upstreams (name -> environment) known; the others keep what they had."""
        with self._changing:
            wanted = [
                Entity(EntityUid.of("Upstream", name), parents=frozenset({environment(place)}))
                for name, place in sorted(environments.items())
                if place in ENVIRONMENTS
            ]
            changed = [upstream for upstream in wanted if self.snapshot.stated.get(upstream.uid) != upstream]
            if changed:
                self._commit(self._delta(entities=tuple(map(entity_to_json, changed))), "configuration")

    # Questions

    def entity(self, uid: EntityUid) -> Entity | None:
        """Return a registered entity with everything that holds of it."""
        return self.snapshot.entity(uid)

    def people(self) -> list[Entity]:
        """Return users, services and agents by kind and name."""
        return list(self.snapshot.entities(PEOPLE))

    def assets(self) -> list[Entity]:
        """Return the registered assets by kind and name."""
        return list(self.snapshot.entities(ASSETS))

    def devices(self) -> list[Entity]:
        """Return the devices by name."""
        return list(self.snapshot.entities(("Device",)))

    # Inside

    def _require(self, uid: EntityUid, right_kind: bool) -> None:  # noqa: FBT001 -- the caller's own test
        if not right_kind or uid not in self.snapshot.stated:
            raise NotFoundError(f"{uid} is not known", hint="Declare it in org.yaml and `doorward apply` it.")

    def _require_new(self, key: KeyRecord) -> None:
        snapshot = self.snapshot
        self._require(key.subject, is_principal(key.subject))
        if key.device is not None:
            self._require(key.device, key.device.kind == "Device")
        same_access = key.access_key_id and snapshot.key_by_access_key_id(key.access_key_id)
        if key.id in snapshot.keys or snapshot.key_by_hash(key.hash) is not None or same_access:
            raise ConflictError("a key with this id or value exists", hint="Create another one.")

    def _keep_someone(self, plan: Plan) -> None:
        """Refuse to remove everyone who can sign in: the next one-time link would make a new admin."""
        gone = {uid_from_json(uid) for uid in plan.delta.entities_removed}
        holders = self._accounts.holders() if gone else frozenset()
        if holders and holders <= gone:
            names = ", ".join(sorted(map(str, holders)))
            raise ConflictError(
                f"this would remove {names}, the last who can sign in to the console",
                hint="Name them in the file, or enrol someone else's passkey first.",
            )

    def _delta(self, **fields: Any) -> Delta:
        return Delta(version=self.snapshot.version + 1, **fields)

    def _commit(self, delta: Delta, operator: str, **more: Any) -> None:
        """Store, then show, then tell; `more` are fields of Entry. The caller holds the lock."""
        require_expected(self.snapshot.version)
        after = self.snapshot.with_delta(delta)
        require_apart(after.stated[uid] for uid in _stated(delta))
        if self._fitting is not None:
            self._fitting.require(after, _stated(delta))
        gone = {*delta.identities_removed, *((f,) for f in delta.certificates_removed)}
        entry = Entry(
            delta=delta,
            time=self._clock.now(),
            operator=operator,
            **{"declared": self._held.declared - gone, **more},
        )
        self._history.append(entry)
        said = entry.provisioning
        self._held = replace(
            self._held,
            snapshot=after,
            declared=entry.declared,
            certificates_revoked=self._held.certificates_revoked | entry.certificates_revoked,
            registry=self._held.registry.changed(
                said.objects, said.statements, said.statements_removed, said.objects_removed
            ),
        )
        log.info("directory_changed", version=delta.version, operator=operator)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(delta)
            except Exception:  # one listener's fault must not keep a revocation from the next
                log.exception("directory_subscriber_failed", version=delta.version)


def _stated(delta: Delta) -> list[EntityUid]:
    return [uid_from_json(entity["uid"]) for entity in delta.entities]


def _vouched(store: Store) -> dict[str, Vouched]:
    states = store.sources.load().values()
    return {state.name: Vouched(state.seen) for state in states if state.seen is not None}
