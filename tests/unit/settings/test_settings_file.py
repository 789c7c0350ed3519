import subprocess
import sys
from pathlib import Path

import pytest

from doorward.core.errors import InvalidConfigError
from doorward.settings import HeaderCredential, S3CredentialHolder, load

UPSTREAM = """\
[gateway]
listen = "127.0.0.1:8640"

[[upstream]]
name = "llm"
kind = "openai"
url = "http://127.0.0.1:9001"
credential = { header = "Authorization", value = "Bearer ${TEST_LLM_KEY}" }
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEST_LLM_KEY", "sk-1")

    def _write(text: str) -> Path:
        file = tmp_path / "doorward.toml"
        file.write_text(text)
        return file

    return _write


def test_secrets_are_resolved_from_the_environment_and_never_shown(write) -> None:
    settings = load(write(UPSTREAM))
    credential = settings.upstream[0].credential
    assert isinstance(credential, HeaderCredential)
    assert credential.value == "Bearer sk-1"
    assert "sk-1" not in repr(settings)


def test_secrets_are_read_from_files(write, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t\n")
    text = UPSTREAM.replace(
        '{ header = "Authorization", value = "Bearer ${TEST_LLM_KEY}" }',
        f'{{ s3 = {{ access_key_id = "k", secret_access_key = "file:{tmp_path}/secret" }} }}',
    )
    credential = load(write(text)).upstream[0].credential
    assert isinstance(credential, S3CredentialHolder)
    assert credential.s3.secret_access_key == "s3cr3t"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("listen =", "lisen =", ":2: unknown key `gateway.lisen`\n  Did you mean `listen`?"),
        ("[gateway]", "[gatway]", ":1: unknown key `gatway`\n  Did you mean `gateway`?"),
        ("kind =", "knd =", ":6: unknown key `upstream.0.knd`\n  Did you mean `kind`?"),
        ("${TEST_LLM_KEY}", "sk-2", ":8: upstream.0.credential.value: a literal secret does not belong here"),
        ("TEST_LLM_KEY", "TEST_NO_SUCH", "the environment variable TEST_NO_SUCH is not set"),
        ('"openai"', '"opnai"', ":6: upstream.0.kind: `opnai` is not one of openai, "),
        ('"openai"', '"opnai"', "Did you mean `openai`?"),
        (
            "http://127.0.0.1:9001",
            "http://10.0.0.1",
            ":7: upstream.0.url: plain HTTP is refused off loopback",
        ),
        ("http://127.0.0.1:9001", "ftp://x", "is not http://HOST, https://HOST or unix:/PATH"),
        ("http://127.0.0.1:9001", "https://a:b@x", "secrets go under `credential`"),
        ("127.0.0.1:8640", "0.0.0.0:8640", "plain HTTP is refused off loopback"),
        ("127.0.0.1:8640", "8640", ":2: gateway.listen: `8640` is not HOST:PORT"),
        ('"llm"', '"LLM/x"', ":5: upstream.0.name:"),
        ("[gateway]", "[gateway", "doorward.toml:1: "),
        ("${TEST_LLM_KEY}", '" = [', "doorward.toml:8: "),
        ('kind = "openai"\n', "", ":4: `upstream.0.kind` is missing"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_right_key(write, old: str, new: str, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(write(UPSTREAM.replace(old, new, 1)))
    assert said in str(caught.value)


def test_a_secret_in_a_message_is_never_repeated(write) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        load(write(UPSTREAM.replace("Bearer ${TEST_LLM_KEY}", "Bearer sk-very-secret")))
    assert "sk-very-secret" not in str(caught.value)


def test_two_upstreams_of_one_name_are_refused(write) -> None:
    again = UPSTREAM[UPSTREAM.index("[[upstream]]") :]
    with pytest.raises(InvalidConfigError, match="two upstreams are called `llm`"):
        load(write(UPSTREAM + again))


def test_the_environment_overrides_the_file(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOORWARD_GATEWAY__LISTEN", "127.0.0.1:7000")
    settings = load(write(UPSTREAM))
    assert settings.gateway.listen == "127.0.0.1:7000"
    assert settings.gateway.max_body > 0


def test_a_misspelt_environment_key_is_an_error(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOORWARD_GATEWAY__LISEN", "127.0.0.1:7000")
    with pytest.raises(InvalidConfigError, match="listen"):
        load(write(UPSTREAM))


def test_test_minting_is_refused_off_loopback(write) -> None:
    text = UPSTREAM.replace('"127.0.0.1:8640"', '"0.0.0.0:8640"\ntls = "auto"')
    with pytest.raises(InvalidConfigError, match="test_minting is refused off loopback"):
        load(write(text + "[identity]\ntest_minting = true\n"))


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="does not exist"):
        load(tmp_path / "doorward.toml")


def test_data_given_on_the_command_line_wins(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOORWARD_DATA", "/nowhere")
    assert load(write(UPSTREAM), data=tmp_path / "d").data == tmp_path / "d"
    assert load(write(UPSTREAM)).data == Path("/nowhere")


@pytest.mark.parametrize(
    "url",
    [
        "doorward.example", "http://doorward.example", "https://doorward.example/", "https://doorward.example/x",
        "https://doorward.example?x", "https://u@doorward.example", "https://Doorward.example", "ftp://localhost",
        "https://", "https://doorward.exämple",
    ],
)  # fmt: skip
def test_a_public_address_is_an_origin_and_nothing_more(write, url: str) -> None:
    with pytest.raises(InvalidConfigError, match="public_url"):
        load(write(f'[control]\npublic_url = "{url}"\n'))


def test_the_control_plane_is_called_what_others_call_it(write) -> None:
    assert load(write("")).control_url == "http://127.0.0.1:8641"
    assert load(write('[control]\ntls = "auto"\n')).control_url == "https://127.0.0.1:8641"
    named = load(write('[control]\npublic_url = "https://doorward.example:8443"\n'))
    assert named.control_url == "https://doorward.example:8443"


def test_reading_the_settings_warns_of_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import doorward.settings"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
