"""What may be said of an issuer, and what of it is never shown."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from doorward.settings import GatewaySettings, IntrospectionSettings, IssuerSettings, KeysSettings


def test_the_client_secret_of_an_introspection_is_a_reference_and_never_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IDP_SECRET", "hunter2-hunter2")
    asking = IntrospectionSettings(client_id="doorward", client_secret="${IDP_SECRET}")
    assert asking.client_secret == "hunter2-hunter2"
    assert "hunter2" not in repr(asking)
    with pytest.raises(ValidationError):
        IntrospectionSettings(client_id="doorward", client_secret="hunter2-hunter2")


@pytest.mark.parametrize("both", [{}, {"client_key": "a.pem", "client_secret": "${HOME}"}])
def test_an_introspection_authenticates_in_exactly_one_way(both: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        IntrospectionSettings(client_id="doorward", **both)


@pytest.mark.parametrize("seconds", [-1, 301])
def test_a_revoked_token_never_opens_for_more_than_five_minutes(seconds: int) -> None:
    with pytest.raises(ValidationError):
        IntrospectionSettings(client_id="d", client_secret="${HOME}", cache=seconds)


@pytest.mark.parametrize(
    "url",
    [
        "gate.example",
        "ftp://gate.example",
        "https://u@gate.example",
        "https://gate.example/x",
        "http://gate.example",
    ],
)
def test_a_public_url_is_a_plain_https_origin(url: str) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(public_url=url)
    assert GatewaySettings(public_url="https://gate.example/").public_url == "https://gate.example"


@pytest.mark.parametrize("issuer", ["http://idp.example", "http://10.0.0.1/realm", "idp.example", "https://"])
def test_an_issuer_whose_keys_could_not_be_asked_for_safely_is_a_mistake_in_the_file(issuer: str) -> None:
    with pytest.raises(ValidationError, match="https://"):
        IssuerSettings(issuer=issuer, audience="x")


@pytest.mark.parametrize(
    "issuer", ["https://idp.example/realms/a", "http://127.0.0.1:9000", "http://localhost:1"]
)
def test_an_issuer_is_https_or_on_this_machine(issuer: str) -> None:
    assert IssuerSettings(issuer=issuer, audience="x").issuer == issuer


@pytest.mark.parametrize("provider", ["pkcs12:token=a", "keys", "file:", ""])
def test_keys_are_in_a_directory_or_a_token_and_nowhere_else(provider: str) -> None:
    with pytest.raises(ValidationError, match="file:keys"):
        KeysSettings(provider=provider)
