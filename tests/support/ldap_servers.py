"""Real directories on loopback: Debian's slapd, and a Samba Active Directory domain controller."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SUFFIX = "dc=corp,dc=test"
PASSWORD = "Passw0rd!of-tests"
SLAPD = shutil.which("slapd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SAMBA = shutil.which("samba", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_UP = 60.0

_SLAPD_CONF = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
moduleload ppolicy
pidfile {home}/pid
sizelimit {sizelimit}
TLSCACertificateFile {home}/ca.pem
TLSCertificateFile {home}/cert.pem
TLSCertificateKeyFile {home}/key.pem
database mdb
maxsize 104857600
suffix "dc=corp,dc=test"
rootdn "cn=admin,dc=corp,dc=test"
rootpw {password}
directory {home}/db
index objectClass,entryUUID,entryCSN,uid eq
overlay syncprov
access to attrs=userPassword by anonymous auth by * none
{access}
access to * by dn.exact="cn=reader,dc=corp,dc=test" read by * none
limits dn.exact="cn=reader,dc=corp,dc=test" size.prtotal=unlimited size.soft={sizelimit}
"""
_ROOT = f"""
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: corp
o: Corp

dn: cn=reader,{SUFFIX}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {PASSWORD}

dn: ou=people,{SUFFIX}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{SUFFIX}
objectClass: organizationalUnit
ou: groups
"""


@dataclass
class Server:
    """A running directory: where, and how to change it."""

    home: Path
    url: str
    plain: str
    bind_dn: str
    base: str
    process: subprocess.Popen[bytes]

    @property
    def ca(self) -> str:
        return str(self.home / "ca.pem")

    def modify(self, ldif: str) -> None:
        """Change the directory as its administrator (slapd)."""
        done = subprocess.run(
            ["ldapmodify", "-x", "-H", self.plain, "-D", f"cn=admin,{SUFFIX}", "-w", PASSWORD],
            input=ldif.encode(), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def person(self, name: str, **more: str) -> str:
        extra = "".join(f"{key}: {value}\n" for key, value in more.items())
        dn = f"uid={name},ou=people,{SUFFIX}"
        self.modify(
            f"dn: {dn}\nchangetype: add\nobjectClass: inetOrgPerson\n"
            f"uid: {name}\ncn: {name}\nsn: {name}\n{extra}"
        )
        return dn

    def group(self, name: str, *members: str) -> str:
        dn = f"cn={name},ou=groups,{SUFFIX}"
        listed = "".join(f"member: {member}\n" for member in members or (f"cn=nobody,{SUFFIX}",))
        self.modify(f"dn: {dn}\nchangetype: add\nobjectClass: groupOfNames\ncn: {name}\n{listed}")
        return dn

    def join(self, group: str, member: str) -> None:
        self.modify(f"dn: {group}\nchangetype: modify\nadd: member\nmember: {member}\n")

    def leave(self, group: str, member: str) -> None:
        self.modify(f"dn: {group}\nchangetype: modify\ndelete: member\nmember: {member}\n")

    def delete(self, dn: str) -> None:
        self.modify(f"dn: {dn}\nchangetype: delete\n")

    def tool(self, *arguments: str) -> None:
        """Run samba-tool against the domain's own database."""
        done = subprocess.run(
            ["samba-tool", *arguments, "-s", str(self.home / "ad/etc/smb.conf")],
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def slapd(*, sizelimit: str = "500", access: str = "") -> Iterator[Server]:
    """Run slapd with an empty organisation; `access` are rules that come before the reader's."""
    home = Path(tempfile.mkdtemp(prefix="dwldap", dir="/tmp"))
    (home / "db").mkdir()
    _certificate(home, "127.0.0.1")
    conf = home / "slapd.conf"
    conf.write_text(_SLAPD_CONF.format(home=home, password=PASSWORD, sizelimit=sizelimit, access=access))
    root = home / "root.ldif"
    root.write_text(_ROOT)
    assert SLAPD is not None
    subprocess.run([str(Path(SLAPD).with_name("slapadd")), "-f", conf, "-l", root], check=True)
    with running(home, conf) as server:
        yield server
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running(home: Path, conf: Path) -> Iterator[Server]:
    """Start slapd on what a directory holds already."""
    assert SLAPD is not None
    plain, private = f"ldap://127.0.0.1:{free_port()}", f"ldaps://127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [SLAPD, "-f", str(conf), "-h", f"{plain} {private}", "-d", "0"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for("127.0.0.1", int(private.rpartition(":")[2]), process)
        yield Server(home, private, plain, f"cn=reader,{SUFFIX}", SUFFIX, process)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def samba() -> Iterator[Server]:
    """Provision a domain, and run its LDAP server, in a folder and on a loopback address of its own."""
    home = Path(tempfile.mkdtemp(prefix="dwad", dir="/tmp"))
    address = f"127.{random.randrange(2, 250)}.{random.randrange(1, 250)}.{random.randrange(2, 250)}"  # noqa: S311
    _certificate(home, address)
    bind = [f"--option=interfaces={address}/8", "--option=bind interfaces only=yes"]
    done = subprocess.run(
        [
            "samba-tool", "domain", "provision", f"--targetdir={home}/ad", "--realm=CORP.TEST",
            "--domain=CORP", f"--adminpass={PASSWORD}", "--server-role=dc", "--dns-backend=NONE",
            f"--host-ip={address}", *bind, f"--option=posix:eadb={home}/ad/eadb.tdb",
        ],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    options = [
        "server services=ldap", f"interfaces={address}/8", "bind interfaces only=yes",
        f"tls certfile={home}/cert.pem", f"tls keyfile={home}/key.pem", f"tls cafile={home}/ca.pem",
    ]  # fmt: skip
    process = subprocess.Popen(
        [str(SAMBA), "-F", "--no-process-group", "-s", f"{home}/ad/etc/smb.conf", "-M", "single",
         *(f"--option={option}" for option in options)],
        stdout=(home / "log").open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        _wait_for(address, 636, process)
        yield Server(
            home, f"ldaps://{address}", f"ldap://{address}", "Administrator@corp.test", SUFFIX, process
        )
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(home, ignore_errors=True)


def why_no_samba() -> str:
    """Return why a domain controller cannot run here, empty if it can."""
    if SAMBA is None:
        return "samba is not installed: make setup-system"
    # Its LDAP ports are fixed at 389 and 636.
    return "" if os.geteuid() == 0 else "Samba's LDAP ports (389, 636) need root"


def _wait_for(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _UP
    while time.monotonic() < deadline:
        assert process.poll() is None, "the directory ended at once"
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no directory at {host}:{port}")


def _certificate(home: Path, address: str) -> None:
    """Write an authority and a server certificate for one address."""
    now = datetime.now(UTC)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "directory")])

    def made(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
        )  # fmt: skip
        if is_authority:
            usage = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            )  # fmt: skip
            builder = builder.add_extension(usage, critical=True)
        else:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(authority, hashes.SHA256())

    (home / "ca.pem").write_bytes(
        made(issuer, authority, is_authority=True).public_bytes(serialization.Encoding.PEM)
    )
    (home / "cert.pem").write_bytes(
        made(subject, own, is_authority=False).public_bytes(serialization.Encoding.PEM)
    )
    key = home / "key.pem"
    key.touch(0o600)
    plain = serialization.NoEncryption()
    key.write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )


async def until(condition: object, seconds: float = 20.0, *, what: str = "") -> float:
    """Wait until a condition holds; return how many seconds it took."""
    started = time.monotonic()
    while not condition():  # type: ignore[operator]
        if time.monotonic() - started > seconds:
            raise TimeoutError(what or "it did not come about")
        await asyncio.sleep(0.02)
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(why_no_samba())
