"""What every database under the store must keep; each test runs over each adapter."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from doorward.core.accounts import ConsoleSession, LinkKind, OneTimeLink, Passkey
from doorward.core.errors import ConflictError, InvalidConfigError, UnavailableError
from doorward.core.feed import Delta
from doorward.core.identity import Bounds, DeviceCertificate, IdentityLink, KeyRecord, SignOut
from doorward.core.model import EntityUid
from doorward.core.sign_ins import Continued, SignIn
from doorward.store.history import Entry, Lowering
from doorward.store.opened import Store
from doorward.store.tables import metadata

uid = EntityUid.of
NOW = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
DANA, ODD = uid("User", "dana"), uid("User", 'o"d\\d\n/ü')


@pytest.fixture(params=["sqlite file", "sqlite memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "sqlite:///state.db" if request.param == "sqlite file" else "sqlite://"
    opened = Store.open(url, tmp_path)
    yield opened
    opened.close()


def link(name: str = "l", **fields: object) -> OneTimeLink:
    made = OneTimeLink(
        hash=name,
        kind=LinkKind.ENROL,
        operator="operator:0",
        created=NOW,
        expires=NOW + timedelta(minutes=15),
    )
    return msgspec.structs.replace(made, **fields)


class TestHistory:
    def test_what_was_written_is_what_is_loaded(self, store: Store) -> None:
        entity = {
            "uid": {"type": ODD.type, "id": ODD.id},
            "attrs": {"risk": 3, "owner": {"__entity": {"type": DANA.type, "id": DANA.id}}},
            "parents": [{"type": "Doorward::Role", "id": "x"}],
            "tags": {"a": "b"},
        }
        delta = Delta(
            version=1,
            entities=(entity,),
            keys=(
                KeyRecord(id="k", hash="h", subject=ODD, created=NOW, expires=NOW, networks=("10.0.0.0/8",)),
                KeyRecord(
                    id="m", hash="i", subject=ODD, created=NOW, access_key_id="AK", device=uid("Device", "d")
                ),
            ),
            identities=(IdentityLink("i", "s", ODD),),
            certificates=(DeviceCertificate("ff", uid("Device", "d"), NOW),),
            zones={"office": ("10.0.0.0/8",)},
            tokens_revoked=("jti",),
            lowered=("Dataset",),
            sign_outs=(SignOut(DANA, before=NOW), SignOut(ODD, mfa_before=NOW)),
        )
        store.history.append(
            Entry(
                delta=delta,
                time=NOW,
                operator="operator:0",
                declared=frozenset({("i", "s")}),
                tokens=(("jti", NOW + timedelta(seconds=1)),),
                lowerings=(Lowering("Dataset", "omar", "why", NOW),),
            )
        )
        loaded = store.history.load(NOW)
        known = loaded.known
        assert (known.version, known.entities, known.identities) == (1, (entity,), delta.identities)
        assert sorted(known.keys, key=lambda key: key.id) == list(delta.keys)
        assert (known.certificates, known.zones) == (delta.certificates, delta.zones)
        assert (known.revoked_tokens, known.lowered) == (("jti",), ("Dataset",))
        assert set(known.sign_outs) == set(delta.sign_outs)
        assert loaded.declared == {("i", "s")}
        assert store.history.changes() == [(1, NOW, "operator:0", delta)]

    def test_removals_remove_and_changes_replace(self, store: Store) -> None:
        def entity(name: str, risk: int) -> dict[str, object]:
            return {"uid": {"type": "T", "id": name}, "attrs": {"risk": risk}, "parents": []}

        store.history.append(
            Entry(delta=Delta(version=1, entities=(entity("a", 1), entity("b", 1))), time=NOW, operator="x")
        )
        gone = ({"type": "T", "id": "b"},)
        store.history.append(
            Entry(
                delta=Delta(version=2, entities=(entity("a", 2),), entities_removed=gone),
                time=NOW,
                operator="x",
            )
        )
        assert store.history.load(NOW).known.entities == (entity("a", 2),)

    def test_a_change_made_for_another_state_writes_nothing(self, store: Store) -> None:
        keys = (KeyRecord(id="k", hash="h", subject=DANA, created=NOW),)
        for version in (0, 2, 7):
            with pytest.raises(ConflictError):
                store.history.append(Entry(delta=Delta(version=version, keys=keys), time=NOW, operator="x"))
        assert (store.history.load(NOW).known.version, store.history.load(NOW).known.keys) == (0, ())

    def test_a_change_that_fails_half_way_is_not_there_at_all(self, store: Store) -> None:
        same = tuple(KeyRecord(id=name, hash="h", subject=DANA, created=NOW) for name in "ab")
        with pytest.raises(Exception, match="UNIQUE"):
            store.history.append(Entry(delta=Delta(version=1, keys=same), time=NOW, operator="x"))
        assert (store.history.load(NOW).known.version, store.history.changes()) == (0, [])

    def test_derived_secrets_are_never_stored(self, store: Store) -> None:
        keys = (KeyRecord(id="k", hash="h", subject=DANA, created=NOW, s3_secret="derived"),)
        store.history.append(Entry(delta=Delta(version=1, keys=keys), time=NOW, operator="x"))
        assert store.history.load(NOW).known.keys[0].s3_secret is None
        with store.database.read() as connection:
            dump = "".join(str(row) for row in connection.execute(text("SELECT * FROM changes, api_keys")))
        assert "derived" not in dump


class TestAccounts:
    def test_a_link_is_redeemed_by_exactly_one_of_many(self, store: Store) -> None:
        store.accounts.create_link(link())
        together = threading.Barrier(8)

        def redeem(_: int) -> OneTimeLink | None:
            together.wait()
            return store.accounts.redeem_link("l", NOW)

        with ThreadPoolExecutor(8) as pool:
            got = [found for found in pool.map(redeem, range(8)) if found is not None]
        assert got == [link()]
        assert store.accounts.redeem_link("l", NOW) is None
        assert store.accounts.link("l", NOW) is None

    def test_a_link_ends_with_its_time(self, store: Store) -> None:
        store.accounts.create_link(link())
        before, end = NOW + timedelta(minutes=15, microseconds=-1), NOW + timedelta(minutes=15)
        assert store.accounts.link("l", before) == link()
        assert store.accounts.link("l", end) is None
        assert store.accounts.redeem_link("l", end) is None
        assert store.accounts.redeem_link("l", before) == link()

    def test_a_new_link_ends_the_unused_one_of_its_kind(self, store: Store) -> None:
        store.accounts.create_link(link())
        store.accounts.create_link(link("s", kind=LinkKind.SESSION))
        store.accounts.create_link(link("m"))
        assert store.accounts.redeem_link("l", NOW) is None
        assert store.accounts.redeem_link("s", NOW) is not None
        assert store.accounts.redeem_link("m", NOW) is not None
        assert store.accounts.redeem_link("unknown", NOW) is None

    def test_passkeys_are_kept_and_their_counter_never_goes_back(self, store: Store) -> None:
        passkey = Passkey(credential_id=b"\x00c", principal=ODD, public_key=b"p", sign_count=5, created=NOW)
        store.accounts.add_passkey(passkey)
        with pytest.raises(ConflictError):
            store.accounts.add_passkey(passkey)
        store.accounts.update_sign_count(b"\x00c", 4)
        assert store.accounts.list_passkeys(ODD) == [passkey]
        store.accounts.update_sign_count(b"\x00c", 6)
        assert store.accounts.list_passkeys()[0].sign_count == 6
        assert store.accounts.list_passkeys(DANA) == []

    def test_a_session_lives_until_it_is_ended(self, store: Store) -> None:
        session = ConsoleSession(
            hash="s", principal=None, operator="operator:0", method="link", created=NOW, last_seen=NOW,
            expires=NOW + timedelta(hours=8),
        )  # fmt: skip
        store.accounts.create_session(session)
        assert store.accounts.session("s") == session
        store.accounts.touch_session("s", NOW + timedelta(minutes=1))
        touched = store.accounts.session("s")
        assert touched is not None
        assert touched.last_seen == NOW + timedelta(minutes=1)
        store.accounts.end_session("s")
        store.accounts.end_session("s")
        assert store.accounts.session("s") is None


class TestDatabase:
    def test_migrations_make_exactly_the_tables(self, store: Store) -> None:
        with store.database.read() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, metadata) == []

    def test_a_database_that_a_newer_doorward_wrote_is_refused(self, tmp_path: Path) -> None:
        opened = Store.open("sqlite:///state.db", tmp_path)
        with opened.database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        opened.close()
        with pytest.raises(InvalidConfigError, match="9999"):
            Store.open("sqlite:///state.db", tmp_path)

    def test_the_file_is_private_and_durable(self, tmp_path: Path) -> None:
        opened = Store.open("sqlite:///state.db", tmp_path / "new")
        opened.accounts.create_link(link())
        files = list((tmp_path / "new").iterdir())
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        with opened.database.read() as connection:
            pragmas = [
                connection.execute(text(f"PRAGMA {name}")).scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert pragmas == ["wal", 2, 1]
        opened.close()

    def test_a_file_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").touch(0o640)
        (tmp_path / "state.db").chmod(0o640)
        with pytest.raises(InvalidConfigError, match="0640"):
            Store.open("sqlite:///state.db", tmp_path)

    def test_a_link_to_another_file_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").symlink_to(tmp_path / "elsewhere.db")
        with pytest.raises(UnavailableError):
            Store.open("sqlite:///state.db", tmp_path)
        assert not (tmp_path / "elsewhere.db").exists()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").write_bytes(b"not a database, but long enough to be read" * 100)
        (tmp_path / "state.db").chmod(0o600)
        with pytest.raises(UnavailableError, match="cannot be opened"):
            Store.open("sqlite:///state.db", tmp_path)

    @pytest.mark.parametrize("url", ["postgresql://h/d", "nonsense"])
    def test_another_database_is_refused_with_what_to_write(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfigError) as caught:
            Store.open(url, tmp_path)
        assert "sqlite:///state.db" in caught.value.hint

    def test_a_held_lock_is_an_unavailable_database_and_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("doorward.store.database._PRAGMAS", ("PRAGMA journal_mode = WAL",))
        opened = Store.open("sqlite:///state.db", tmp_path)
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with opened.database.read() as connection:
            connection.execute(text("PRAGMA busy_timeout = 1"))
        with pytest.raises(UnavailableError):
            opened.accounts.create_link(link())
        other.execute("ROLLBACK")
        other.close()
        opened.accounts.create_link(link())
        opened.close()


class TestSignIns:
    def sign_in(self, name: str = "s", **fields: object) -> SignIn:
        made = SignIn(
            id=name, principal=DANA, client="doorward-cli", resources=("https://gate.example",),
            signed_in_at=NOW - timedelta(minutes=1), acr="aal2", amr=("hwk", "mfa"), created=NOW,
            expires=NOW + timedelta(hours=12), bounds=Bounds(actions=("read",), max_tokens=3),
        )  # fmt: skip
        return msgspec.structs.replace(made, **fields)

    def test_a_refresh_token_is_used_once_and_known_afterwards(self, store: Store) -> None:
        sign_in, sign_ins = self.sign_in(), store.sign_ins
        sign_ins.begin(sign_in, "one")
        assert sign_ins.find("one", NOW) == sign_in
        assert sign_ins.redeem("other", "two", NOW) is None
        assert sign_ins.redeem("one", "two", NOW) == Continued(sign_in, stolen=False)
        assert sign_ins.redeem("one", "three", NOW) == Continued(sign_in, stolen=True)
        assert sign_ins.find("three", NOW) is None
        assert sign_ins.redeem("two", "three", NOW) == Continued(sign_in, stolen=False)

    def test_of_many_at_once_one_uses_it(self, store: Store) -> None:
        store.sign_ins.begin(self.sign_in(), "one")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: store.sign_ins.redeem("one", f"next-{n}", NOW), range(16)))
        assert sum(one is not None and not one.stolen for one in found) == 1

    def test_what_is_over_or_ended_is_unknown(self, store: Store) -> None:
        sign_ins, later = store.sign_ins, NOW + timedelta(hours=12)
        sign_ins.begin(self.sign_in(), "one")
        assert sign_ins.of(DANA, NOW) == [self.sign_in()]
        assert sign_ins.find("one", later) is None
        assert sign_ins.redeem("one", "two", later) is None
        sign_ins.begin(self.sign_in("t", created=later, expires=later + timedelta(hours=1)), "other")
        assert sign_ins.of(DANA, NOW) == [
            self.sign_in("t", created=later, expires=later + timedelta(hours=1))
        ]
        sign_ins.end("t")
        sign_ins.end("t")
        assert sign_ins.find("other", later) is None

    def test_who_is_removed_takes_her_sign_ins_along(self, store: Store) -> None:
        entity = {"uid": {"type": DANA.type, "id": DANA.id}, "attrs": {}, "parents": []}
        store.history.append(Entry(delta=Delta(version=1, entities=(entity,)), time=NOW, operator="x"))
        store.sign_ins.begin(self.sign_in(), "one")
        gone = Delta(version=2, entities_removed=({"type": DANA.type, "id": DANA.id},))
        store.history.append(Entry(delta=gone, time=NOW, operator="x"))
        assert store.sign_ins.find("one", NOW) is None
