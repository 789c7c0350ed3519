"""`key`, `token` and `devices` from the command line to the database, on a real control plane."""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs
from typer.testing import CliRunner

from doorward.cli import devices, key, people, token
from doorward.core.clock import SystemClock
from doorward.core.errors import AuditUnavailableError, UnauthenticatedError
from doorward.core.identity import Bounds
from doorward.core.model import EntityUid
from doorward.core.onetime import MemoryOneTime
from doorward.core.wire import Peer, Request
from doorward.directory.org import parse
from doorward.identity import api_keys
from doorward.identity.authenticate import Authenticator
from doorward.identity.last_use import LastUses
from support.console_plane import Plane, running

ORG = """
users:
  dana: { roles: [data-scientist], projects: [fraud], purposes: [fraud-model] }
  omar: {}
  gone: { active: false }
services: { etl-test: { owner: omar, environment: testing } }
agents: { scout: { owner: dana, environment: production } }
devices:
  laptop-7: { managed: true, compliant: true, owner: dana }
  odd/name: { managed: true }
projects: { fraud: { purposes: [shared] } }
"""
DANA, LAPTOP = EntityUid.of("User", "dana"), EntityUid.of("Device", "laptop-7")


@pytest.fixture
def _quiet() -> Iterator[None]:
    # The command runs in this process: what the control plane logs must not mix with its output.
    with capture_logs():
        yield


@pytest.fixture
async def plane(_quiet: None) -> AsyncIterator[Plane]:
    async with running(issues=True) as one:
        one.services.directory.apply(parse(ORG, "org.yaml"))
        yield one


async def run(plane: Plane, *arguments: str) -> Result:
    app = typer.Typer()
    for noun in (key, token, devices, people):
        noun.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--data", str(plane.data)])


async def made(plane: Plane, *arguments: str) -> Any:
    result = await run(plane, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def gate(plane: Plane, **more: Any) -> Authenticator:
    return Authenticator(
        lambda: plane.services.directory.snapshot,
        [],
        plane.services.issuer.jwks,
        SystemClock(),
        "http://127.0.0.1:8640",
        one_time=MemoryOneTime(SystemClock()),
        **more,
    )


def asked(text: str | None = None, certificate: bytes | None = None) -> Request:
    return Request(
        id="r", method="GET", path="/", raw_path="/", query=(), raw_query="",
        headers=() if text is None else (("authorization", f"Bearer {text}"),),
        peer=Peer("127.0.0.1", tls=certificate is not None, certificate=certificate),
        body=None,  # type: ignore[arg-type]  # nobody reads it
    )  # fmt: skip


def records(plane: Plane) -> bytes:
    return b"".join(path.read_bytes() for path in (plane.data / "audit").rglob("*") if path.is_file())


async def test_a_key_is_printed_once_works_at_once_and_is_stored_nowhere(plane: Plane) -> None:
    bounds = (
        "--device",
        "laptop-7",
        "--purpose",
        "fraud-model",
        "--expires",
        "90d",
        "--network",
        "127.0.0.0/8",
    )
    issued = await made(plane, "key", "create", "--user", "dana", *bounds)
    assert set(issued) == {"id", "key", "access_key_id", "secret_access_key"}
    caller = await gate(plane).authenticate(asked(issued["key"]))
    assert (caller.principal, caller.device, caller.device_proven) == (DANA, LAPTOP, False)
    assert caller.bound_purpose == "fraud-model"
    assert caller.expires is not None
    assert timedelta(days=89) < caller.expires - datetime.now(UTC) <= timedelta(days=90)
    record = plane.services.directory.snapshot.keys[issued["id"]]
    secret = plane.services.custodian.s3_secret(issued["id"], 1, record.created)
    assert issued["secret_access_key"] == secret
    stored = b"".join(path.read_bytes() for path in plane.data.rglob("*") if path.is_file())
    assert issued["key"].encode() not in stored
    assert issued["key"][3:].encode() not in stored
    assert issued["secret_access_key"].encode() not in stored
    assert hashlib.sha256(issued["key"].encode()).hexdigest().encode() in stored


async def test_a_key_list_shows_bounds_and_nothing_secret(plane: Plane) -> None:
    issued = await made(plane, "key", "create", "--service", "etl-test")
    await made(plane, "key", "create", "--agent", "scout")
    result = await run(plane, "key", "list", "--json")
    listed = json.loads(result.stdout)
    assert [entry["subject"] for entry in listed] == ['Service::"etl-test"', 'Agent::"scout"']
    assert "hash" not in result.stdout
    assert issued["key"] not in result.stdout
    assert issued["secret_access_key"] not in result.stdout
    assert "etl-test" in (await run(plane, "key", "list")).stdout


async def test_a_revoked_key_is_refused_at_once_and_stays_revoked(plane: Plane) -> None:
    issued = await made(plane, "key", "create", "--user", "dana")
    door = gate(plane)
    caller = await door.authenticate(asked(issued["key"]))
    assert (await run(plane, "key", "revoke", issued["id"])).exit_code == 0
    assert not door.still_valid(caller)
    with pytest.raises(UnauthenticatedError):
        await door.authenticate(asked(issued["key"]))
    again = await run(plane, "key", "revoke", issued["id"])
    assert again.exit_code == 1
    assert "no key" in again.stderr


REFUSED = (
    (("--user", "dnaa"), 1, "Did you mean `dana`?"),
    (("--user", "dana", "--device", "laptop-8"), 1, "Did you mean `laptop-7`?"),
    (("--user", "gone"), 1, "not active"),
    (("--user", "dana", "--purpose", "marketing"), 1, "not assigned"),
    (("--user", "dana", "--service", "etl-test"), 2, "exactly one"),
    ((), 2, "exactly one"),
    (("--user", "dana", "--expires", "soon"), 2, "not a lifetime"),
    (("--user", "dana", "--network", "10.0.0.1/8"), 2, "not a network"),
    (("--user", 'Service::"etl-test"'), 2, "not a user"),
    (("--user", 'a", action == Action::"x'), 2, "not an entity name"),
)


async def test_a_key_for_what_is_not_so_is_refused_and_made_nowhere(plane: Plane) -> None:
    for arguments, code, words in REFUSED:
        refused = await run(plane, "key", "create", *arguments)
        assert refused.exit_code == code, refused.output
        assert words in refused.stderr
    assert plane.services.directory.keys() == []


async def test_a_projects_purpose_is_assigned_too(plane: Plane) -> None:
    assert await made(plane, "key", "create", "--user", "dana", "--purpose", "shared")


async def test_every_change_is_on_record_with_who_and_what_and_no_secret(plane: Plane) -> None:
    issued = await made(plane, "key", "create", "--user", "dana", "--purpose", "fraud-model")
    await made(plane, "key", "revoke", issued["id"])
    minted = await made(plane, "token", "--user", "dana")
    log = records(plane)
    assert f'Key::\\"{issued["id"]}\\"'.encode() in log
    for words in (b'"action":"issue"', b'"action":"contain"', b"a key for User", b"an access token for User"):
        assert words in log
    for secret in (issued["key"], issued["secret_access_key"], minted["access_token"]):
        assert secret.encode() not in log


async def test_without_a_record_there_is_no_change(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = await made(plane, "key", "create", "--user", "dana")
    audit = plane.services.audit
    write = audit.write

    # Only the record of the change itself fails: the worst moment.
    async def fail(record: Any) -> None:
        if record.detail.startswith(("a ", "an ", "revoke ")):
            raise AuditUnavailableError("the disk is full")
        await write(record)

    monkeypatch.setattr(audit, "write", fail)
    for arguments in (
        ("key", "create", "--user", "dana"),
        ("key", "revoke", issued["id"]),
        ("token", "--user", "dana"),
        ("devices", "enrol", "laptop-7", "--out", str(plane.data / "out")),
    ):
        refused = await run(plane, *arguments)
        assert refused.exit_code == 8, refused.output
    assert [record.id for record in plane.services.directory.keys()]  # noqa: SIM118 -- no dict == [issued["id"]]
    assert not plane.services.directory.snapshot.certificates
    assert not (plane.data / "out").exists()


async def test_a_minted_token_opens_the_gate_for_its_user(plane: Plane) -> None:
    text = (await run(plane, "token", "--user", "dana", "--purpose", "fraud-model")).stdout.strip()
    caller = await gate(plane).authenticate(asked(text))
    assert (caller.principal, caller.bound_purpose, caller.minted) == (DANA, "fraud-model", True)
    answer = await made(plane, "token", "--user", "dana")
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)


async def test_a_token_that_would_claim_too_much_is_not_minted(plane: Plane) -> None:
    for arguments in (
        ("--user", "dana", "--mfa"),
        ("--user", "dana", "--device", "laptop-7"),
        ("--user", "dana", "--purpose", "marketing"),
        ("--user", "gone"),
        ("--user", "nobody"),
    ):
        refused = await run(plane, "token", *arguments)
        assert (refused.exit_code, refused.stdout) == (1, ""), arguments


@pytest.mark.usefixtures("_quiet")
async def test_under_test_minting_a_token_may_claim_mfa_and_device_and_says_so() -> None:
    async with running(issues=True, test_minting=True) as plane:
        plane.services.directory.apply(parse(ORG, "org.yaml"))
        text = (await run(plane, "token", "--user", "dana", "--mfa", "--device", "laptop-7")).stdout.strip()
        assert (await run(plane, "token", "--user", "dana", "--device", "laptop-8")).exit_code == 1
        caller = await gate(plane, test_minting=True).authenticate(asked(text))
        assert (caller.device, caller.device_proven, caller.minted) == (LAPTOP, True, True)
        assert caller.mfa_at is not None


async def test_an_enrolled_device_proves_itself_until_it_is_revoked(plane: Plane, tmp_path: Path) -> None:
    issued = await made(plane, "devices", "enrol", "laptop-7", "--out", str(tmp_path / "out"))
    assert stat.S_IMODE(Path(issued["key"]).stat().st_mode) == 0o600
    pem = Path(issued["certificate"]).read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    private = serialization.load_pem_private_key(Path(issued["key"]).read_bytes(), None)
    assert certificate.public_key() == private.public_key()
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert issued["fingerprint"] == hashlib.sha256(der).hexdigest()
    door = gate(plane)
    caller = await door.authenticate(asked(certificate=der))
    assert caller.principal == LAPTOP
    listed = json.loads((await run(plane, "devices", "list", "--json")).stdout)
    laptop = next(device for device in listed if device["name"] == "laptop-7")
    assert (laptop["managed"], laptop["owner"]) == (True, 'User::"dana"')
    assert [held["fingerprint"] for held in laptop["certificates"]] == [issued["fingerprint"]]
    assert "laptop-7" in (await run(plane, "devices", "list")).stdout

    revoked = await made(plane, "devices", "revoke", "laptop-7")
    assert revoked == {"device": "laptop-7", "revoked": [issued["fingerprint"]]}
    assert not door.still_valid(caller)
    with pytest.raises(UnauthenticatedError):
        await door.authenticate(asked(certificate=der))
    assert (await run(plane, "devices", "revoke", "laptop-7")).exit_code == 1


async def test_with_a_signing_request_the_key_stays_on_the_device(plane: Plane, tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    )
    (tmp_path / "d.csr").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    issued = await made(
        plane, "devices", "enrol", "laptop-7", "--csr", str(tmp_path / "d.csr"), "--out", str(tmp_path)
    )
    assert "key" not in issued
    assert not (tmp_path / "laptop-7.key").exists()
    certificate = x509.load_pem_x509_certificate(Path(issued["certificate"]).read_bytes())
    assert certificate.public_key() == private.public_key()


async def test_a_key_file_is_never_overwritten_and_no_certificate_wasted(
    plane: Plane, tmp_path: Path
) -> None:
    await made(plane, "devices", "enrol", "laptop-7", "--out", str(tmp_path))
    before = (tmp_path / "laptop-7.key").read_bytes()
    refused = await run(plane, "devices", "enrol", "laptop-7", "--out", str(tmp_path))
    assert (refused.exit_code, "there already" in refused.stderr) == (1, True)
    assert (tmp_path / "laptop-7.key").read_bytes() == before
    assert len(plane.services.directory.snapshot.certificates) == 1


async def test_odd_device_names_stay_inside_the_directory(plane: Plane, tmp_path: Path) -> None:
    issued = await made(plane, "devices", "enrol", "odd/name", "--out", str(tmp_path))
    assert Path(issued["certificate"]).parent == tmp_path
    assert (await made(plane, "devices", "revoke", "odd/name"))["device"] == "odd/name"


async def test_an_unknown_device_gets_no_certificate(plane: Plane, tmp_path: Path) -> None:
    for name in ("laptop-8", "../laptop-7", ""):
        assert (await run(plane, "devices", "enrol", name, "--out", str(tmp_path))).exit_code != 0
    assert list(tmp_path.iterdir()) == []


async def test_fields_nobody_knows_are_refused_by_the_api(plane: Plane) -> None:
    for path, body in (
        ("/api/v1/keys", {"user": "dana", "hash": "0" * 64}),
        ("/api/v1/keys", {"user": "dana", "id": "K1", "generation": 9}),
        ("/api/v1/tokens", {"user": "dana", "minted": False}),
        ("/api/v1/tokens", {"user": "dana", "mfa": "yes please"}),
        ("/api/v1/devices/laptop-7/certificate", {"csr": None, "ca": True}),
    ):
        status, answer = await plane.operator("POST", path, body)
        assert (status, answer["code"]) == (400, "invalid_request"), body
    assert plane.services.directory.keys() == []


@pytest.mark.usefixtures("_quiet")
async def test_in_recovery_an_operator_may_revoke_but_not_issue() -> None:
    async with running(issues=True, local_operator="recovery") as plane:
        directory = plane.services.directory
        directory.apply(parse(ORG, "org.yaml"))
        record, _ = api_keys.create(key_id="K1", subject=DANA, now=datetime.now(UTC))
        directory.add_key(record)
        assert (await run(plane, "key", "create", "--user", "dana")).exit_code == 1
        assert (await run(plane, "token", "--user", "dana")).exit_code == 1
        assert (await run(plane, "devices", "enrol", "laptop-7", "--out", str(plane.data))).exit_code == 1
        assert (await run(plane, "key", "revoke", "K1")).exit_code == 0
        assert directory.keys() == []


async def test_a_bounded_key_carries_its_bounds_and_shows_them(plane: Plane) -> None:
    bounds = ("--action", "read", "--action", "view", "--resource", 'Dataset::"store/training"')
    issued = await made(plane, "key", "create", "--user", "dana", *bounds)
    caller = await gate(plane).authenticate(asked(issued["key"]))
    expected = Bounds(("read", "view"), (), (EntityUid.of("Dataset", "store/training"),))
    assert caller.bounds == (expected,)
    listed = (await made(plane, "key", "list"))[0]
    assert (listed["actions"], listed["resources"]) == (["read", "view"], ['Dataset::"store/training"'])


@pytest.mark.parametrize(
    ("bound", "code", "says"),
    [
        (("--action", "raed"), 2, "Did you mean `read`?"),
        (("--upstream", "nowhere"), 2, "no upstream `nowhere`"),
        (("--resource", 'User::"dana"'), 2, "is no asset"),
        (("--resource", "store/a"), 2, "not an entity name"),
    ],
)
async def test_a_bound_that_means_nothing_is_refused(
    plane: Plane, bound: tuple[str, str], code: int, says: str
) -> None:
    result = await run(plane, "key", "create", "--user", "dana", *bound)
    assert result.exit_code in {code, 1}, result.output
    assert says in result.output.replace("\n", " ")
    assert plane.services.directory.keys() == []


async def test_a_rotated_key_works_on_for_the_overlap_and_the_new_one_has_all_its_bounds(
    plane: Plane,
) -> None:
    bounds = ("--purpose", "fraud-model", "--expires", "90d", "--action", "read", "--device", "laptop-7")
    old = await made(plane, "key", "create", "--user", "dana", *bounds)
    new = await made(plane, "key", "rotate", old["id"], "--overlap", "2h")
    assert (old["key"], old["access_key_id"]) != (new["key"], new["access_key_id"])
    callers = [await gate(plane).authenticate(asked(one["key"])) for one in (old, new)]
    told = [(c.principal, c.bound_purpose, c.bounds, c.device) for c in callers]
    assert told[0] == told[1]
    ends = [caller.expires - datetime.now(UTC) for caller in callers if caller.expires is not None]
    assert timedelta(hours=1, minutes=59) < ends[0] <= timedelta(hours=2)
    assert timedelta(days=89) < ends[1] <= timedelta(days=90)
    again = await run(plane, "key", "rotate", old["id"])
    assert new["id"] in again.output
    assert again.exit_code != 0
    shown = {entry["id"]: entry["successor"] for entry in await made(plane, "key", "list")}
    assert shown == {old["id"]: new["id"], new["id"]: None}
    assert f'"replaces":"{old["id"]}"'.encode() in records(plane)


async def test_an_overlap_never_lengthens_a_keys_life(plane: Plane) -> None:
    old = await made(plane, "key", "create", "--user", "dana", "--expires", "1h")
    await made(plane, "key", "rotate", old["id"], "--overlap", "7d")
    caller = await gate(plane).authenticate(asked(old["key"]))
    assert caller.expires is not None
    assert caller.expires - datetime.now(UTC) <= timedelta(hours=1)


async def test_the_last_use_of_a_key_is_shown_and_costs_no_write_per_request(plane: Plane) -> None:
    issued = await made(plane, "key", "create", "--user", "dana")
    uses = LastUses(plane.data)
    door = gate(plane, uses=uses)
    for _ in range(50):
        await door.authenticate(asked(issued["key"]))
    assert not (plane.data / "last-use").exists()
    assert (await made(plane, "key", "list"))[0]["last_used"] is None
    uses.save()
    listed = (await made(plane, "key", "list"))[0]
    assert listed["last_used_from"] == "127.0.0.1"
    assert datetime.now(UTC) - datetime.fromisoformat(listed["last_used"]) < timedelta(minutes=1)
    # What a process wrote it knows after a restart; keys that are gone are forgotten.
    again = LastUses(plane.data)
    again.forget_others(frozenset())
    again.save()
    assert (await made(plane, "key", "list"))[0]["last_used"] is None


async def test_identities_are_linked_and_unlinked_from_the_command_line_on_record(plane: Plane) -> None:
    at = ("--issuer", "https://idp.example", "--subject", "00u1")
    assert (await made(plane, "people", "link", "dana", *at))["principal"] == 'User::"dana"'
    assert await made(plane, "people", "link", "dana", *at)  # twice is no error
    taken = await run(plane, "people", "link", "omar", *at)
    assert taken.exit_code != 0
    assert 'linked to User::"dana"' in taken.output
    assert (await made(plane, "people", "identities"))[0]["principal"] == 'User::"dana"'
    assert (await made(plane, "people", "unlink", *at))["principal"] == 'User::"dana"'
    assert (await run(plane, "people", "unlink", *at)).exit_code != 0
    assert (await made(plane, "people", "link", "omar", *at))["principal"] == 'User::"omar"'
    assert (await run(plane, "people", "link", "nobody", *at)).exit_code != 0
    recorded = records(plane)
    assert recorded.count(b"link an identity of") == 3
    assert b"unlink an identity of" in recorded
