"""What `doorward.toml` may say; every key also as `DOORWARD_<SECTION>__<KEY>`."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from doorward.settings.network import NetworkSettings
from doorward.settings.provisioning import (
    DirectorySourceSettings,
    ProvisioningSettings,
    require_sources_apart,
)
from doorward.settings.section import IssuerUrl, KeyProvider, Secret, Section, is_loopback
from doorward.settings.signals import SignalSettings, require_transmitters_apart

UpstreamKind = Literal[
    "openai", "anthropic", "ollama", "mlflow", "s3", "mcp", "chroma", "huggingface", "http"
]


def split_listen(listen: str) -> tuple[str, int]:
    """Return (host, port) of `HOST:PORT`; raise ValueError otherwise."""
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise ValueError(f"`{listen}` is not HOST:PORT, like 127.0.0.1:8640")
    return host.strip("[]"), int(port)


def _checked_listen(listen: str) -> str:
    split_listen(listen)
    return listen


Listen = Annotated[str, AfterValidator(_checked_listen)]
_MAX_PORT = 65_535


class TlsSettings(Section):
    """Certificate, key and client CA of a listener, as paths."""

    cert: Path
    key: Path
    client_ca: Path | None = None


def _checked_public_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"`{url}` is not https://HOST[:PORT]")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("the public URL has no path, query or fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain HTTP is refused off loopback: use https://")
    return url.rstrip("/")


def _checked_network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as reason:
        raise ValueError(f"`{text}` is no address and no network ({reason})") from None


Network = Annotated[str, AfterValidator(_checked_network)]


class GatewaySettings(Section):
    """The data port. Bounds: bytes and seconds.

    `public_url` is how callers reach it, if not by `listen`: tokens and proofs are made for it.
    Only of `proxies` is `X-Forwarded-For` believed.
    """

    listen: Listen = "127.0.0.1:8640"
    proxies: tuple[Network, ...] = ()
    public_url: Annotated[str, AfterValidator(_checked_public_url)] | None = None
    tls: TlsSettings | Literal["auto"] | None = None
    max_body: int = 64 * 1024 * 1024
    max_json_body: int = 8 * 1024 * 1024
    max_header_bytes: int = 60 * 1024
    max_headers: int = 100
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    body_pause: float = 10.0
    idle_timeout: float = 3600.0
    write_timeout: float = 60.0
    half_close: float = 0.5
    max_connections: int = 20_000
    max_connections_per_address: int = 4_000
    max_buffered: int = 512 * 1024 * 1024
    streams_per_principal: int = 2_000
    upstream_timeout: float = 120.0
    max_staleness: float = 86_400.0
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    drain: Annotated[float, Field(ge=0, le=3600)] = 20.0


def _checked_origin(url: str) -> str:
    """Return a control plane's address as others reach it; raise ValueError unless it is just an origin."""
    parts = urlsplit(url)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or url != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ValueError(f"`{url}` is not https://HOST or https://HOST:PORT, without a path")
    if parts.username is not None or url != url.lower() or not url.isascii():
        raise ValueError(f"`{url}` must be in lower case and have no user")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain HTTP is refused off loopback: use https://")
    return url


class ControlSettings(Section):
    """The control plane: management API, console, database.

    `public_url` is its address as others reach it (`https://doorward.example`), where that is not
    what it listens on: it names the token issuer, the decision point, links and passkeys.
    """

    listen: Listen = "127.0.0.1:8641"
    tls: TlsSettings | Literal["auto"] | None = None
    public_url: Annotated[str, AfterValidator(_checked_origin)] | None = None
    database: str = "sqlite:///state.db"
    local_operator: Literal["full", "recovery"] | None = None


class PoliciesSettings(Section):
    """Where policies live and whether files or reviewed bundles rule."""

    path: Path = Path("policies")
    mode: Literal["files", "reviewed"] = "files"


class HeaderCredential(Section):
    """A header the gateway sends to the upstream in place of the caller's credential."""

    header: str
    value: Secret = Field(repr=False)


class S3Credential(Section):
    """The upstream's own S3 keys; the gateway signs with them."""

    access_key_id: str
    secret_access_key: Secret = Field(repr=False)
    region: str = "us-east-1"


class MtlsCredential(Section):
    """A client certificate the gateway shows to the upstream."""

    cert: Path
    key: Path
    ca: Path | None = None


class S3CredentialHolder(Section):
    """`credential = { s3 = {...} }`."""

    s3: S3Credential


class MtlsCredentialHolder(Section):
    """`credential = { mtls = {...} }`."""

    mtls: MtlsCredential


def _credential_kind(value: Any) -> str:
    keys = value if isinstance(value, Mapping) else getattr(value, "model_fields_set", ())
    return next((kind for kind in ("s3", "mtls") if kind in keys), "header")


UpstreamCredential = Annotated[
    Annotated[HeaderCredential, Tag("header")]
    | Annotated[S3CredentialHolder, Tag("s3")]
    | Annotated[MtlsCredentialHolder, Tag("mtls")],
    Discriminator(_credential_kind),
]


def _checked_url(url: str) -> str:
    if url.startswith("unix:/"):
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"`{url}` is not http://HOST, https://HOST or unix:/PATH")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("a URL here has no user, query or fragment; secrets go under `credential`")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError("plain HTTP is refused off loopback: use https:// or unix:/PATH")
    return url


class UpstreamSettings(Section):
    """One protected system; its name is the first path segment and the start of its asset names."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    kind: UpstreamKind
    url: Annotated[str, AfterValidator(_checked_url)]
    environment: Literal["development", "training", "testing", "production"] = "production"
    credential: UpstreamCredential | None = None
    ca: Path | None = None
    deployed: tuple[str, ...] = ("Production", "Staging")
    deployed_aliases: tuple[str, ...] = ("production", "champion")
    weights_prefixes: tuple[str, ...] = ()


class IntrospectionSettings(Section):
    """How opaque tokens of an issuer are asked for (RFC 7662): as which client, and how long it is believed.

    `client_key` (PEM, 0600) signs assertions (`private_key_jwt`), else `client_secret` is sent. `cache` is
    in seconds: so long may a revoked token still open. `signed` demands RFC 9701 answers. Where several
    issuers have opaque tokens, `prefix` says whose a token is: nobody else is asked about it.
    """

    client_id: str
    client_secret: Secret | None = Field(default=None, repr=False)
    client_key: Path | None = None
    cache: Annotated[float, Field(ge=0, le=300)] = 30.0
    signed: bool = False
    prefix: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.client_secret is None) == (self.client_key is None):
            raise ValueError("introspection needs exactly one of client_key and client_secret")
        return self


MappedAttribute = Literal["groups", "name", "email", "department", "employment"]


class IssuerSettings(Section):
    """An identity provider whose access tokens are accepted (RFC 9068).

    `map` says which claim becomes which attribute of the person (`groups`, `name`, `email`, `department`,
    `employment`), `trust` what of the sign-in is believed. `provision` makes whoever is unknown somebody.
    `max_age` is for how many seconds after a token was issued what it says is believed.
    """

    issuer: IssuerUrl
    audience: str
    map: dict[MappedAttribute, str] = Field(default_factory=dict)
    trust: tuple[Literal["acr", "amr", "auth_time"], ...] = ()
    provision: bool = False
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    jwks_ttl: float = 300.0
    max_age: Annotated[int, Field(gt=0)] = 86_400
    introspection: IntrospectionSettings | None = None


class SpiffeSettings(Section):
    """A SPIFFE trust domain whose workloads may come in, each as the Service or Agent it is linked to.

    `bundle` is a SPIFFE bundle (JSON) or the authorities in PEM, read again when the file changes.
    `audience` is what JWT-SVIDs must be for, if not the gateway's own URL.
    """

    trust_domain: str
    bundle: Path
    audience: str = ""


class IdentitySettings(Section):
    """Rules for tokens of the local issuer, and for proofs of possession.

    `dpop_nonce` demands that every DPoP proof holds a nonce of ours, so that none can be made in advance.
    """

    test_minting: bool = False
    token_lifetime: int = 900
    dpop_nonce: bool = False


class KeysSettings(Section):
    """The custodian of signing keys and secrets."""

    provider: KeyProvider = "file:keys"


class AuditSettings(Section):
    """Durability of the log; seconds and bytes."""

    deadline: float = 2.0
    segment_bytes: int = 64 * 1024 * 1024


class ShadowSettings(Section):
    """The shadow check: one live decision in `every` is decided again elsewhere; 0 turns it off."""

    every: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1000


def _plain_off_loopback(listen: str, tls: object) -> bool:
    return tls is None and not is_loopback(split_listen(listen)[0])


class Settings(BaseSettings):
    """The whole configuration, read once at start; `base` is the directory paths are relative to."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix="DOORWARD_", env_nested_delimiter="__"
    )

    gateway: GatewaySettings = GatewaySettings()
    control: ControlSettings = ControlSettings()
    policies: PoliciesSettings = PoliciesSettings()
    identity: IdentitySettings = IdentitySettings()
    keys: KeysSettings = KeysSettings()
    audit: AuditSettings = AuditSettings()
    shadow: ShadowSettings = ShadowSettings()
    network: NetworkSettings = NetworkSettings()
    upstream: tuple[UpstreamSettings, ...] = ()
    issuer: tuple[IssuerSettings, ...] = ()
    provisioning: tuple[ProvisioningSettings, ...] = ()
    signals: tuple[SignalSettings, ...] = ()
    spiffe: tuple[SpiffeSettings, ...] = ()
    directory_source: tuple[DirectorySourceSettings, ...] = ()
    base: Path = Path()
    data: Path = Path(".doorward")

    @property
    def control_url(self) -> str:
        """Return the control plane's own name: its public address, or the one it listens on."""
        control = self.control
        return control.public_url or f"{'https' if control.tls else 'http'}://{control.listen}"

    def resolve(self, path: Path) -> Path:
        """Return a configured path, relative ones taken from the config file's directory."""
        return path if path.is_absolute() else self.base / path

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment override the file."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @model_validator(mode="after")
    def _safe_together(self) -> Self:
        for name, section in (("gateway", self.gateway), ("control", self.control)):
            if _plain_off_loopback(section.listen, section.tls):
                raise ValueError(
                    f"[{name}] listen = {section.listen}: plain HTTP is refused off loopback; "
                    'add tls = "auto" or listen on 127.0.0.1'
                )
        names = [upstream.name for upstream in self.upstream]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two upstreams are called `{min(twice)}`; names must differ")
        require_sources_apart(
            (*self.provisioning, *self.directory_source), {one.issuer for one in self.issuer}
        )
        require_transmitters_apart(self.signals)
        if self.identity.test_minting and self.policies.mode == "reviewed":
            raise ValueError("[identity] test_minting is refused when policies are reviewed")
        if self.identity.test_minting and not is_loopback(split_listen(self.gateway.listen)[0]):
            raise ValueError("[identity] test_minting is refused off loopback")
        return self
