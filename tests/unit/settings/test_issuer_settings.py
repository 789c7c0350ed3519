"""What may be said of an issuer, and what of it is never shown."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from doorward.settings import GatewaySettings, IntrospectionSettings


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
