"""Keys that never leave a PKCS #11 token: softhsm2 stands for the hardware module."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import ECKey

from doorward.core.clock import ManualClock
from doorward.core.errors import InvalidConfigError, UnavailableError
from doorward.core.ids import IdSource
from doorward.core.model import EntityUid
from doorward.identity.custody import Custodian, KeyUse
from doorward.identity.device_authority import DeviceAuthority
from doorward.identity.issuer import LocalIssuer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "481516"
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

pytestmark = pytest.mark.skipif(
    shutil.which("softhsm2-util") is None or not Path(MODULE).exists(),
    reason="needs softhsm2: `make setup-system` installs it",
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One token store for the module: the library reads its configuration once a process."""
    folder = tmp_path_factory.mktemp("hsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    for label in ("doorward", "closed"):
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "0000"],
            check=True, capture_output=True,
        )  # fmt: skip
    pin = folder / "pin"
    pin.write_text(PIN + "\n")
    pin.chmod(0o600)
    yield folder
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def uri(tokens: Path, *, token: str = "doorward", pin: str | None = None) -> str:
    return f"pkcs11:token={token}?module-path={MODULE}&pin-source={pin or f'file:{tokens}/pin'}"


@pytest.fixture
def custodian(tokens: Path, tmp_path: Path) -> Custodian:
    return Custodian.open(uri(tokens), tmp_path)


def test_the_issuer_signs_tokens_that_anybody_verifies(custodian: Custodian) -> None:
    clock = ManualClock(NOW)
    issuer = LocalIssuer(custodian, issuer="http://c", audience="http://g", clock=clock, ids=IdSource(clock))
    token = issuer.mint(EntityUid.of("User", "dana")).text.reveal()
    (key,) = issuer.jwks()["keys"]
    assert jwt.decode(token, ECKey.import_key(key), algorithms=["ES256"]).claims["sub"] == 'User::"dana"'


def test_the_ca_enrols_devices_and_its_certificates_verify(custodian: Custodian) -> None:
    authority = DeviceAuthority(custodian, ManualClock(NOW))
    enrolled = authority.enrol("laptop-7", now=NOW)
    ca = x509.load_pem_x509_certificate(authority.ca_pem.encode())
    x509.load_pem_x509_certificate(enrolled.certificate.encode()).verify_directly_issued_by(ca)


def test_checkpoints_and_s3_secrets_come_from_the_token_and_stay_the_same(
    tokens: Path, custodian: Custodian, tmp_path: Path
) -> None:
    again = Custodian.open(uri(tokens), tmp_path)
    signature = custodian.ed25519(KeyUse.CHECKPOINT).sign(b"message")
    again.ed25519(KeyUse.CHECKPOINT).public_key().verify(signature, b"message")
    assert custodian.s3_secret("K", 1, NOW) == again.s3_secret("K", 1, NOW)
    assert custodian.s3_secret("K", 2, NOW) != custodian.s3_secret("K", 1, NOW)


def test_no_key_leaves_the_token_and_none_lies_beside_it(custodian: Custodian, tmp_path: Path) -> None:
    keys = custodian.p256(KeyUse.ISSUER), custodian.ed25519(KeyUse.CHECKPOINT)
    for key in keys:
        with pytest.raises(UnsupportedAlgorithm):
            key.private_bytes(*PEM)
    DeviceAuthority(custodian, ManualClock(NOW))
    custodian.s3_secret("K", 1, NOW)
    beside = [file for file in (tmp_path / "keys").rglob("*") if file.is_file()]
    assert [file.name for file in beside] == ["device-ca.crt"]
    assert all(b"PRIVATE" not in file.read_bytes() for file in beside)


def test_a_rotated_key_is_another_one(custodian: Custodian) -> None:
    before = custodian.p256(KeyUse.ISSUER).public_key()
    custodian.rotate(KeyUse.ISSUER, now=NOW)
    after = custodian.p256(KeyUse.ISSUER)
    after.public_key().verify(after.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))
    assert after.public_key() != before
    assert custodian.honoured(KeyUse.ISSUER, overlap=timedelta(hours=1), now=NOW) == (2, 1)


def test_a_pin_may_come_from_the_environment(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORWARD_PIN", PIN)
    assert Custodian.open(uri(tokens, pin="env:DOORWARD_PIN"), tmp_path).s3_secret("K", 1, NOW)


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("pkcs11:token=doorward?module-path=/x&pin-value=1234", "may not stand in the configuration"),
        ("pkcs11:token=doorward", "needs token, module-path and pin-source"),
        ("pkcs11:", "needs token, module-path and pin-source"),
        ("pkcs11:object=a;token=b?module-path=/x&pin-source=env:A", "does not know `object`"),
        ("pkcs11:token=b?module-path=relative.so&pin-source=env:PATH", "no PKCS #11 module"),
        ("pkcs11:token=b?module-path=/no/such.so&pin-source=env:PATH", "no PKCS #11 module"),
        (f"pkcs11:token=b?module-path={MODULE}&pin-source=env:NO_SUCH_PIN", "the environment has no"),
        (f"pkcs11:token=b?module-path={MODULE}&pin-source=vault:x", "cannot be read from `vault`"),
    ],
)
def test_a_token_that_is_not_named_right_is_refused_in_clear_words(
    tokens: Path, tmp_path: Path, provider: str, said: str
) -> None:
    del tokens
    if "token=b?" in provider and MODULE in provider:
        provider = provider.replace("token=b", "token=doorward")
    with pytest.raises(InvalidConfigError) as caught:
        Custodian.open(provider, tmp_path)
    assert said in str(caught.value)
    assert "1234" not in str(caught.value)


def test_a_wrong_pin_or_token_is_told_without_the_pin(tokens: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "pin"
    wrong.write_text("999999")
    wrong.chmod(0o600)
    for provider in (uri(tokens, token="closed", pin=f"file:{wrong}"), uri(tokens, token="another")):
        with pytest.raises(UnavailableError) as caught:
            Custodian.open(provider, tmp_path)
        assert "999999" not in str(caught.value)


def test_a_pin_that_others_can_read_is_refused(tokens: Path, tmp_path: Path) -> None:
    loose = tmp_path / "pin"
    loose.write_text(PIN)
    loose.chmod(0o644)
    with pytest.raises(InvalidConfigError, match="others can reach it"):
        Custodian.open(uri(tokens, pin=f"file:{loose}"), tmp_path)


def test_a_server_of_a_rotated_ca_is_trusted_by_clients_of_the_old_one(
    custodian: Custodian, tmp_path: Path
) -> None:
    clock = ManualClock(datetime.now(UTC))
    authority = DeviceAuthority(custodian, clock)
    old_trust = authority.ca_pem
    custodian.rotate(KeyUse.DEVICE_CA, now=clock.now())
    files = authority.ensure_server_files(tmp_path, "gateway", "127.0.0.1", now=clock.now())
    for trust in (old_trust, authority.ca_pem):
        handshake(files.cert, trust)


def handshake(pair: Path, trust: str) -> None:
    """Shake hands in memory; raise ssl.SSLError if the client does not trust the server."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pair)
    client_side = ssl.create_default_context(cadata=trust)
    client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    client.do_handshake()
