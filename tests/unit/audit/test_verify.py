from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from doorward.app.checkpoint_keys import CheckpointKeys
from doorward.audit import canonical
from doorward.audit.head import Checkpointer, CheckpointKey, read_checkpoint
from doorward.audit.signature import Endorsement, checker, endorsed_bytes
from doorward.audit.verify import Break, verify
from doorward.audit.writer import AuditWriter
from doorward.core.errors import AuditBrokenError
from doorward.identity.custody import Custodian, KeyUse

COUNT = 12


@pytest.fixture
async def log(make_writer: Callable[..., AuditWriter], record: Any, tmp_path: Path) -> Path:
    """A cleanly stopped log of one `opened` record and eleven decisions, in one segment."""
    async with make_writer() as writer:
        for _ in range(COUNT - 1):
            await writer.write(record())
    return tmp_path / "audit"


def segment(log: Path) -> Path:
    return log / "gateway" / f"{1:020d}.jsonl"


def lines(log: Path) -> list[bytes]:
    return segment(log).read_bytes().splitlines(keepends=True)


def rewrite(log: Path, kept: list[bytes]) -> None:
    segment(log).write_bytes(b"".join(kept))


def first(log: Path) -> Break:
    broken = verify(log).broken
    assert broken, "nothing was found"
    return broken[0]


def named(line: bytes) -> str:
    return str(msgspec.json.decode(line)["id"])


def test_an_untouched_log_is_intact(log: Path) -> None:
    report = verify(log)
    assert report.intact
    assert [(each.writer, each.records, each.clean) for each in report.writers] == [("gateway", COUNT, True)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@example(at=4_404_533_906_117_265, flip=110)  # becomes a newline in the middle of a record
@given(at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_any_changed_byte_names_the_record_it_is_in(log: Path, at: int, flip: int) -> None:
    whole = segment(log).read_bytes()
    at %= len(whole)
    spoilt = bytearray(whole)
    spoilt[at] ^= flip
    segment(log).write_bytes(spoilt)
    try:
        found = first(log)
        expected = whole[:at].count(b"\n") + 1
        # A lost newline at the very end makes the last record torn: it is cut off.
        assert found.seq == expected
        assert found.what in {"changed", "cut"}
        line = whole.split(b"\n")[expected - 1]
        inside = at - whole.rfind(b"\n", 0, at) - 1
        name = line.index(b'"id":"')
        if found.what == "changed" and not name <= inside < name + 33:
            assert found.id == named(line)
    finally:
        segment(log).write_bytes(whole)


@pytest.mark.parametrize("index", range(COUNT))
def test_a_changed_record_is_named(log: Path, index: int) -> None:
    kept = lines(log)
    name = named(kept[index])
    kept[index] = kept[index].replace(b'"kind"', b'"kinD"', 1)
    rewrite(log, kept)
    found = first(log)
    assert (found.what, found.seq, found.id, found.writer) == ("changed", index + 1, name, "gateway")


@pytest.mark.parametrize("index", range(COUNT))
def test_a_changed_record_with_its_hash_rewritten_is_named(log: Path, index: int) -> None:
    kept = lines(log)
    document = msgspec.json.decode(kept[index])
    for key in ("hash", "prev", "seq", "writer"):
        document.pop(key)
    previous = canonical.GENESIS if index == 0 else msgspec.json.decode(kept[index - 1])["hash"]
    document["detail"] = "nothing to see here"
    kept[index] = canonical.sealed(document, seq=index + 1, writer="gateway", previous=previous)[0]
    rewrite(log, kept)
    found = first(log)
    assert (found.what, found.seq, found.id) == ("changed", index + 1, document["id"])


@pytest.mark.parametrize("index", range(COUNT - 1))
def test_a_removed_record_is_named(log: Path, index: int) -> None:
    kept = lines(log)
    del kept[index]
    rewrite(log, kept)
    found = first(log)
    assert (found.what, found.seq) == ("removed", index + 1)


@pytest.mark.parametrize("index", range(COUNT - 1))
def test_two_swapped_records_are_named(log: Path, index: int) -> None:
    kept = lines(log)
    name = named(kept[index])
    kept[index], kept[index + 1] = kept[index + 1], kept[index]
    rewrite(log, kept)
    found = first(log)
    assert (found.what, found.seq, found.id) == ("reordered", index + 1, name)


@pytest.mark.parametrize("index", range(COUNT))
@pytest.mark.parametrize("to", [1, COUNT])
def test_a_duplicated_record_is_named(log: Path, index: int, to: int) -> None:
    kept = lines(log)
    name = named(kept[index])
    kept.insert(max(to, index + 1), kept[index])
    rewrite(log, kept)
    found = first(log)
    assert (found.what, found.seq, found.id) == ("duplicated", index + 1, name)


@pytest.mark.parametrize("left", range(COUNT))
def test_a_cut_tail_is_found_after_a_clean_stop(log: Path, left: int) -> None:
    rewrite(log, lines(log)[:left])
    found = first(log)
    assert (found.what, found.seq) == ("cut", left + 1)


def test_a_tail_cut_in_the_middle_of_a_record_is_found(log: Path) -> None:
    segment(log).write_bytes(segment(log).read_bytes()[:-10])
    assert (first(log).what, first(log).seq) == ("cut", COUNT)


def test_a_record_added_after_a_clean_stop_is_named(log: Path) -> None:
    kept = lines(log)
    head = msgspec.json.decode(kept[-1])["hash"]
    forged = {"id": "forged", "kind": "decision", "time": "t", "request_id": "r"}
    kept.append(canonical.sealed(forged, seq=COUNT + 1, writer="gateway", previous=head)[0])
    rewrite(log, kept)
    assert (first(log).what, first(log).seq) == ("added", COUNT + 1)


def test_a_record_of_another_writer_is_not_accepted(log: Path) -> None:
    shutil.move(log / "gateway", log / "control")
    assert first(log).what == "added"


def test_a_log_rewritten_from_end_to_end_does_not_match_its_head(log: Path) -> None:
    kept, previous = [], canonical.GENESIS
    for number, line in enumerate(lines(log), start=1):
        document = msgspec.json.decode(line)
        for key in ("hash", "prev", "seq", "writer"):
            document.pop(key)
        document["time"] = "2020-01-01T00:00:00.000Z"
        fresh, previous = canonical.sealed(document, seq=number, writer="gateway", previous=previous)
        kept.append(fresh)
    rewrite(log, kept)
    assert (first(log).what, first(log).seq) == ("changed", COUNT)


def test_a_missing_head_file_is_found(log: Path) -> None:
    (log / "gateway/head.json").unlink()
    assert first(log).what == "missing"


def test_a_spoilt_head_file_is_found(log: Path) -> None:
    (log / "gateway/head.json").write_text("{}")
    assert first(log).what == "changed"


def test_a_missing_log_is_found(tmp_path: Path) -> None:
    assert verify(tmp_path / "nowhere").broken[0].what == "missing"


async def test_a_missing_segment_is_found(
    make_writer: Callable[..., AuditWriter], record: Any, tmp_path: Path
) -> None:
    async with make_writer(segment_bytes=1_500) as writer:
        for _ in range(10):
            await writer.write(record())
    paths = sorted((tmp_path / "audit/gateway").glob("*.jsonl"))
    assert len(paths) > 3
    paths[1].unlink()
    found = first(tmp_path / "audit")
    assert (found.what, found.seq) == ("removed", int(paths[1].stem))


class Fixed:
    """One key for good."""

    def __init__(self, key: Ed25519PrivateKey, **more: Any) -> None:
        self._key = CheckpointKey(sign=key.sign, **more)

    def newest(self) -> CheckpointKey:
        return self._key


class TestCheckpoint:
    key = Ed25519PrivateKey.generate()

    def check(self) -> Any:
        return checker(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    @pytest.fixture
    def signed(self, log: Path, clock: Any) -> Path:
        Checkpointer(log, keys=Fixed(self.key), clock=clock).sign_now()
        return log

    def test_its_signature_is_checked(self, signed: Path) -> None:
        assert verify(signed, check_signature=self.check()).intact
        other = Ed25519PrivateKey.generate().public_key()
        pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert [found.what for found in verify(signed, check_signature=checker(pem)).broken] == ["unsigned"]

    def test_a_whole_writer_gone_is_found(self, signed: Path) -> None:
        shutil.rmtree(signed / "gateway")
        found = first(signed)
        assert (found.what, found.writer) == ("missing", "gateway")

    def test_a_cut_tail_with_a_matching_head_is_found(self, signed: Path) -> None:
        rewrite(signed, lines(signed)[:-3])
        last = msgspec.json.decode(lines(signed)[-1])
        head = signed / "gateway/head.json"
        forged = {**msgspec.json.decode(head.read_bytes()), "size": last["seq"], "head": last["hash"]}
        head.write_bytes(msgspec.json.encode(forged))
        found = first(signed)
        assert (found.what, found.seq) == ("cut", COUNT - 2)

    def test_its_removal_is_found_after_a_clean_stop(self, signed: Path) -> None:
        (signed / "checkpoint.json").unlink()
        assert not verify(signed, check_signature=self.check()).intact

    def test_an_edited_one_is_found(self, signed: Path) -> None:
        place = signed / "checkpoint.json"
        place.write_text(place.read_text().replace(f'"size":{COUNT}', '"size":3'))
        assert not verify(signed, check_signature=self.check()).intact

    def test_less_than_before_is_never_signed(self, signed: Path, clock: Any) -> None:
        before = read_checkpoint(signed)
        shutil.rmtree(signed / "gateway")
        (signed / "control").mkdir()
        (signed / "control/head.json").write_text('{"writer":"control","size":1,"head":"x","time":"t"}')
        with pytest.raises(AuditBrokenError, match="no longer holds"):
            Checkpointer(signed, keys=Fixed(self.key), clock=clock).sign_now()
        assert read_checkpoint(signed) == before

    def test_a_key_that_nobody_rotated_never_replaces_the_one_beside_the_log(
        self, log: Path, clock: Any
    ) -> None:
        for name in ("first", "second"):
            keys = Fixed(self.key, name=name, pem=name.encode())
            Checkpointer(log, keys=keys, clock=clock).sign_now()
        assert (log / "checkpoint.pub").read_bytes() == b"first"

    def test_nothing_new_is_not_signed_again(self, signed: Path, clock: Any) -> None:
        assert Checkpointer(signed, keys=Fixed(self.key), clock=clock).sign_now() is None

    def test_a_rotated_key_signs_what_nothing_was_added_to(self, signed: Path, clock: Any) -> None:
        keys = Fixed(Ed25519PrivateKey.generate(), name="other")
        assert Checkpointer(signed, keys=keys, clock=clock).sign_now() is not None


class TestRotatedKey:
    """Who holds an earlier key verifies what later ones signed; who holds a distrusted one does not."""

    @pytest.fixture
    def custodian(self, tmp_path: Path) -> Custodian:
        return Custodian.open("file:keys", tmp_path)

    def pem(self, custodian: Custodian, generation: int) -> bytes:
        key = custodian.ed25519(KeyUse.CHECKPOINT, generation).public_key()
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def holds(self, log: Path, pem: bytes) -> bool:
        return verify(log, check_signature=checker(pem, log)).intact

    def test_the_first_key_verifies_after_two_rotations(
        self, log: Path, clock: Any, custodian: Custodian
    ) -> None:
        checkpointer = Checkpointer(log, keys=CheckpointKeys(custodian), clock=clock)
        checkpointer.sign_now()
        first = self.pem(custodian, 1)
        for _ in range(2):
            custodian.rotate(KeyUse.CHECKPOINT, now=clock.now())
            assert checkpointer.sign_now() is not None
        assert self.holds(log, first)
        assert (log / "checkpoint.pub").read_bytes() == self.pem(custodian, 3)
        assert not verify(log, check_signature=checker(first)).intact

    def test_a_distrusted_key_verifies_nothing_later(
        self, log: Path, clock: Any, custodian: Custodian
    ) -> None:
        custodian.rotate(KeyUse.CHECKPOINT, now=clock.now(), distrust=True)
        Checkpointer(log, keys=CheckpointKeys(custodian), clock=clock).sign_now()
        assert not self.holds(log, self.pem(custodian, 1))
        assert self.holds(log, self.pem(custodian, 2))

    @pytest.mark.parametrize("forged", [b"[", b"{}", b'[{"key":"zz","signature":""}]'])
    def test_a_forged_chain_endorses_nobody(
        self, log: Path, clock: Any, custodian: Custodian, forged: bytes
    ) -> None:
        custodian.rotate(KeyUse.CHECKPOINT, now=clock.now())
        Checkpointer(log, keys=CheckpointKeys(custodian), clock=clock).sign_now()
        assert self.holds(log, self.pem(custodian, 1))
        (log / "checkpoint.keys.json").write_bytes(forged)
        assert not self.holds(log, self.pem(custodian, 1))

    def test_a_stranger_cannot_endorse_herself(self, log: Path, clock: Any, custodian: Custodian) -> None:
        Checkpointer(log, keys=CheckpointKeys(custodian), clock=clock).sign_now()
        trusted, stranger = self.pem(custodian, 1), Ed25519PrivateKey.generate()
        own = Endorsement(
            stranger.public_key().public_bytes_raw().hex(),
            stranger.sign(endorsed_bytes(stranger.public_key())).hex(),
        )
        keys = Fixed(stranger, name="stranger", endorsements=msgspec.json.encode([own]))
        Checkpointer(log, keys=keys, clock=clock).sign_now()
        assert not self.holds(log, trusted)
