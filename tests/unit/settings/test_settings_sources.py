"""Sources of people in the configuration: private connections, no empty passwords, names apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from doorward.core.errors import InvalidConfigError
from doorward.settings import Settings, load

GOOD = {
    "name": '"corp"', "server": '"ad"', "url": '"ldaps://dc.example"', "bind_dn": '"reader"',
    "password": '"${PW}"', "base": '"DC=x"',
}  # fmt: skip


def written(tmp_path: Path, **changes: Any) -> Path:
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value}
    file = tmp_path / "doorward.toml"
    file.write_text("[[directory_source]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items()))
    return file


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "secret")
    monkeypatch.setenv("EMPTY", "")


def test_a_whole_section_is_read_and_its_password_is_not_shown(tmp_path: Path) -> None:
    settings = load(written(tmp_path))
    (source,) = settings.directory_source
    assert source.password == "secret"
    assert "secret" not in repr(settings)
    assert source.source == "ldap:corp"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": '"ldap://dc.example"'}, "plain LDAP is refused off loopback"),
        ({"url": '"http://dc.example"'}, "is not ldaps://HOST"),
        ({"url": '"ldaps://u:p@dc.example"'}, "no user"),
        ({"url": '"ldaps://dc.example/dc=x"'}, "no user, path"),
        ({"start_tls": "true"}, "start_tls is for ldap://"),
        ({"password": '"literal"'}, "a literal secret does not belong here"),
        ({"password": '"${EMPTY}"'}, "needs a password that is not empty"),
        ({"password": ""}, "needs a password that is not empty"),
        ({"bind_dn": "", "password": ""}, "bind_dn is missing"),
        ({"issuer": '"https://idp"'}, "issuer needs attributes.subject"),
        ({"attributes": '{ email = "mail)(uid=*" }'}, "match"),
        ({"member": '["member;range=0-1"]'}, "match"),
        ({"clearance": "{ all = 4 }"}, "less than or equal to 3"),
        ({"max_removals": "2"}, "less than or equal to 1"),
    ],
)
def test_what_is_unsafe_or_wrong_is_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidConfigError) as refused:
        load(written(tmp_path, **changes))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"url": '"ldap://127.0.0.1:389"'},
        {"url": '"ldap://dc.example"', "start_tls": "true"},
        {"url": '"ldapi://%2frun%2fldapi"', "bind_dn": "", "password": ""},
    ],
)
def test_what_is_private_is_taken(tmp_path: Path, changes: dict[str, str]) -> None:
    assert load(written(tmp_path, **changes)).directory_source


def test_two_sources_of_one_name_and_an_unknown_issuer_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "doorward.toml"
    file.write_text('[[provisioning]]\nservice = "a"\n[[provisioning]]\nservice = "a"\n')
    with pytest.raises(InvalidConfigError, match="two sources are called `scim:a`"):
        load(file)
    file.write_text('[[provisioning]]\nservice = "a"\nissuer = "https://nowhere"\n')
    with pytest.raises(InvalidConfigError, match=r"that of no \[\[issuer\]\]"):
        load(file)


def test_a_misspelt_key_gets_the_nearest_right_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="Did you mean `max_removals`"):
        load(written(tmp_path, max_removal="0.5"))


def test_no_secret_of_any_section_is_shown() -> None:
    hidden = [
        f"{section.__name__}.{name}"
        for section in (s for s in _sections(Settings) if s is not Settings)
        for name, field in section.model_fields.items()
        if "_resolved" in repr(field.metadata) + repr(field.annotation) and field.repr
    ]
    assert hidden == []


def _sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = set()
    waiting: list[Any] = [model]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel) and one not in found:
            found.add(one)
            waiting += [field.annotation for field in one.model_fields.values()]
        else:
            waiting += get_args(one)
    return found
