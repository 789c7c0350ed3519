from __future__ import annotations

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from doorward.core.errors import InvalidConfigError
from doorward.identity.custody import Custodian, KeyUse

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def open_keys(data: Path) -> Custodian:
    return Custodian.open("file:keys", data)


def test_what_is_made_is_private_from_the_start(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        custodian = open_keys(tmp_path)
        custodian.p256(KeyUse.ISSUER)
        custodian.s3_secret("K", 1, NOW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    files = list((tmp_path / "keys").iterdir())
    assert {file.name for file in files} == {"issuer.pem", "s3-master.secret"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_each_use_has_its_own_key_and_keeps_it(tmp_path: Path) -> None:
    one, again = open_keys(tmp_path), open_keys(tmp_path)
    issuer = one.p256(KeyUse.ISSUER).private_bytes(*PEM)
    assert again.p256(KeyUse.ISSUER).private_bytes(*PEM) == issuer
    assert one.p256(KeyUse.DEVICE_CA).private_bytes(*PEM) != issuer
    assert one.s3_secret("K", 1, NOW) == again.s3_secret("K", 1, NOW)
    assert one.ed25519(KeyUse.CHECKPOINT).private_bytes(*PEM) == again.ed25519(
        KeyUse.CHECKPOINT
    ).private_bytes(*PEM)


def test_many_who_come_first_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: open_keys(tmp_path).p256(KeyUse.ISSUER).private_bytes(*PEM), range(32)))
    assert len(keys) == 1
    assert [file.name for file in (tmp_path / "keys").iterdir()] == ["issuer.pem"]


@pytest.mark.parametrize(
    ("name", "mode", "right"), [("keys", 0o750, "700"), ("keys/issuer.pem", 0o640, "600")]
)
def test_what_others_can_reach_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, name: str, mode: int, right: str
) -> None:
    open_keys(tmp_path).p256(KeyUse.ISSUER)
    (tmp_path / name).chmod(mode)
    with pytest.raises(InvalidConfigError) as caught:
        open_keys(tmp_path)
    assert caught.value.hint == f"chmod {right} '{tmp_path / name}'"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_that_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    open_keys(tmp_path).p256(KeyUse.ISSUER)
    os.chown(tmp_path / "keys/issuer.pem", 12345, 12345)
    with pytest.raises(InvalidConfigError, match="another user"):
        open_keys(tmp_path)


def test_a_link_in_place_of_a_key_or_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidConfigError):
        open_keys(tmp_path)
    (tmp_path / "keys").unlink()
    custodian = open_keys(tmp_path)
    custodian.p256(KeyUse.DEVICE_CA)
    # It points at a good private key of ours; a link to it is refused all the same.
    (tmp_path / "keys/device-ca.pem").rename(tmp_path / "target")
    (tmp_path / "keys/issuer.pem").symlink_to(tmp_path / "target")
    with pytest.raises(InvalidConfigError):
        custodian.p256(KeyUse.ISSUER)


@pytest.mark.parametrize("content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_is_never_replaced_in_silence(tmp_path: Path, content: bytes) -> None:
    custodian = open_keys(tmp_path)
    for file in ("issuer.pem", "s3-master.secret"):
        (tmp_path / "keys" / file).write_bytes(content)
        (tmp_path / "keys" / file).chmod(0o600)
    with pytest.raises(InvalidConfigError, match="issuer"):
        custodian.p256(KeyUse.ISSUER)
    with pytest.raises(InvalidConfigError, match="s3-master"):
        custodian.s3_secret("K", 1, NOW)
    assert (tmp_path / "keys/issuer.pem").read_bytes() == content


@pytest.mark.parametrize("provider", ["vault:x", "file", "file:", "keys", ""])
def test_another_provider_is_refused_in_clear_words(tmp_path: Path, provider: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Custodian.open(provider, tmp_path)
    assert "provider" in str(caught.value)


def test_an_s3_secret_is_derived_from_id_and_generation_alone(tmp_path: Path) -> None:
    one, again = open_keys(tmp_path), open_keys(tmp_path)
    secrets = {one.s3_secret(key, generation, NOW) for key in ("K1", "K2") for generation in (1, 2)}
    assert len(secrets) == 4
    assert one.s3_secret("K1", 1, NOW) == again.s3_secret("K1", 1, NOW)
    assert all(len(secret or "") == 43 for secret in secrets)
    (tmp_path / "other").mkdir()
    assert open_keys(tmp_path / "other").s3_secret("K1", 1, NOW) != one.s3_secret("K1", 1, NOW)
    assert "K1" not in "".join(file.read_text() for file in (tmp_path / "keys").iterdir())


def test_a_custodian_shows_no_key(tmp_path: Path) -> None:
    custodian = open_keys(tmp_path)
    custodian.s3_secret("K", 1, NOW)
    assert (tmp_path / "keys/s3-master.secret").read_text() not in f"{custodian!r} {vars(custodian)!r}"


class TestRotation:
    OVERLAP = timedelta(minutes=15)

    def test_the_next_key_signs_and_the_earlier_one_counts_for_its_overlap(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        first = custodian.p256(KeyUse.ISSUER).private_bytes(*PEM)
        assert custodian.rotate(KeyUse.ISSUER, now=NOW) == 2
        assert custodian.p256(KeyUse.ISSUER).private_bytes(*PEM) != first
        assert custodian.p256(KeyUse.ISSUER, 1).private_bytes(*PEM) == first
        within, after = NOW + self.OVERLAP - timedelta(seconds=1), NOW + self.OVERLAP
        assert custodian.honoured(KeyUse.ISSUER, overlap=self.OVERLAP, now=within) == (2, 1)
        assert custodian.honoured(KeyUse.ISSUER, overlap=self.OVERLAP, now=after) == (2,)

    def test_a_distrusted_key_counts_for_nothing_nor_do_those_before_it(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        custodian.rotate(KeyUse.ISSUER, now=NOW)
        custodian.rotate(KeyUse.ISSUER, now=NOW, distrust=True)
        assert custodian.honoured(KeyUse.ISSUER, overlap=self.OVERLAP, now=NOW) == (3,)
        custodian.rotate(KeyUse.ISSUER, now=NOW)
        assert custodian.honoured(KeyUse.ISSUER, overlap=self.OVERLAP, now=NOW) == (4, 3)

    def test_other_uses_keep_their_key(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        custodian.rotate(KeyUse.ISSUER, now=NOW)
        assert custodian.generation(KeyUse.DEVICE_CA) == 1

    def test_a_restart_knows_which_key_is_the_newest(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        custodian.rotate(KeyUse.ISSUER, now=NOW, distrust=True)
        again = open_keys(tmp_path)
        assert again.generation(KeyUse.ISSUER) == 2
        assert again.rotations(KeyUse.ISSUER) == custodian.rotations(KeyUse.ISSUER)
        assert again.p256(KeyUse.ISSUER).private_bytes(*PEM) == custodian.p256(KeyUse.ISSUER).private_bytes(
            *PEM
        )

    def test_a_rotation_that_cannot_be_written_down_did_not_happen(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        shutil.rmtree(tmp_path / "keys")
        with pytest.raises(InvalidConfigError, match="cannot be kept"):
            custodian.rotate(KeyUse.ISSUER, now=NOW)
        assert custodian.generation(KeyUse.ISSUER) == 1

    def test_a_damaged_list_of_rotations_is_never_taken_for_none(self, tmp_path: Path) -> None:
        open_keys(tmp_path).rotate(KeyUse.ISSUER, now=NOW)
        (tmp_path / "keys/rotations.json").write_text("[")
        with pytest.raises(InvalidConfigError, match=r"rotations\.json"):
            open_keys(tmp_path)

    def test_s3_secrets_in_use_outlive_a_rotation_of_their_master(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        made_before, made_after = NOW - timedelta(days=1), NOW + timedelta(days=1)
        old = custodian.s3_secret("K", 1, made_before)
        custodian.rotate(KeyUse.S3_MASTER, now=NOW)
        assert custodian.s3_secret("K", 1, made_before) == old
        assert custodian.s3_secret("K", 1, made_after) not in {None, old}
        assert custodian.s3_secret("K", 1, NOW) == custodian.s3_secret("K", 1, made_after)

    def test_s3_secrets_of_a_distrusted_master_are_gone(self, tmp_path: Path) -> None:
        custodian = open_keys(tmp_path)
        custodian.rotate(KeyUse.S3_MASTER, now=NOW, distrust=True)
        assert custodian.s3_secret("K", 1, NOW - timedelta(seconds=1)) is None
        assert custodian.s3_secret("K", 1, NOW) is not None
