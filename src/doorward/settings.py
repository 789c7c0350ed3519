"""What `doorward.toml` may say; every key also as `DOORWARD_<SECTION>__<KEY>`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

UpstreamKind = Literal[
    "openai", "anthropic", "ollama", "mlflow", "s3", "mcp", "chroma", "huggingface", "http"
]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """Certificate, key and client CA of a listener, as paths."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class GatewaySettings(Section):
    """The data port. Bounds: bytes and seconds."""

    listen: str = "127.0.0.1:8640"
    tls: TlsSettings | Literal["auto"] | None = None
    max_body: int = 64 * 1024 * 1024
    max_json_body: int = 8 * 1024 * 1024
    max_header_bytes: int = 60 * 1024
    max_headers: int = 100
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    upstream_timeout: float = 120.0
    max_staleness: float = 86_400.0


class ControlSettings(Section):
    """The control plane: management API, console, database."""

    listen: str = "127.0.0.1:8641"
    tls: TlsSettings | Literal["auto"] | None = None
    database: str = "sqlite:///state.db"
    local_operator: Literal["full", "recovery"] | None = None


class PoliciesSettings(Section):
    """Where policies live and whether files or reviewed bundles rule."""

    path: Path = Path("policies")
    mode: Literal["files", "reviewed"] = "files"


class HeaderCredential(Section):
    """A header the gateway sends to the upstream in place of the caller's credential."""

    header: str
    value: str


class S3Credential(Section):
    """The upstream's own S3 keys; the gateway signs with them."""

    access_key_id: str
    secret_access_key: str
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


UpstreamCredential = HeaderCredential | S3CredentialHolder | MtlsCredentialHolder


class UpstreamSettings(Section):
    """One protected system; its name is the first path segment and the start of its asset names."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    kind: UpstreamKind
    url: str
    environment: Literal["development", "training", "testing", "production"] = "production"
    credential: UpstreamCredential | None = None
    ca: Path | None = None
    deployed: tuple[str, ...] = ("Production", "Staging")
    deployed_aliases: tuple[str, ...] = ("production", "champion")
    weights_prefixes: tuple[str, ...] = ()


class IssuerSettings(Section):
    """An identity provider whose access tokens are accepted (RFC 9068)."""

    issuer: str
    audience: str
    map: dict[str, str] = Field(default_factory=dict)
    trust: tuple[str, ...] = ()
    provision: bool = False
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    jwks_ttl: float = 300.0


class IdentitySettings(Section):
    """Rules for tokens of the local issuer."""

    test_minting: bool = False
    token_lifetime: int = 900


class KeysSettings(Section):
    """The custodian of signing keys and secrets."""

    provider: str = "file:keys"


class AuditSettings(Section):
    """Durability of the log; seconds and bytes."""

    deadline: float = 2.0
    segment_bytes: int = 64 * 1024 * 1024


class Settings(Section):
    """The whole configuration, read once at start; `base` is the directory paths are relative to."""

    gateway: GatewaySettings = GatewaySettings()
    control: ControlSettings = ControlSettings()
    policies: PoliciesSettings = PoliciesSettings()
    identity: IdentitySettings = IdentitySettings()
    keys: KeysSettings = KeysSettings()
    audit: AuditSettings = AuditSettings()
    upstream: tuple[UpstreamSettings, ...] = ()
    issuer: tuple[IssuerSettings, ...] = ()
    base: Path = Path()
    data: Path = Path(".doorward")

    def resolve(self, path: Path) -> Path:
        """Return a configured path, relative ones taken from the config file's directory."""
        return path if path.is_absolute() else self.base / path


def load(
    path: Path | None, *, environment: dict[str, str] | None = None, data: Path | None = None
) -> Settings:
    """Read and check the configuration; raise InvalidConfigError with file:line and the nearest key."""
    raise NotImplementedError
