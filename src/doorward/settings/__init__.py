"""The configuration: sections, and how the file is read."""

from doorward.settings.file import CONFIG_NAME, load
from doorward.settings.network import NetworkSettings
from doorward.settings.provisioning import DirectorySourceSettings, ProvisioningSettings
from doorward.settings.section import is_loopback
from doorward.settings.sections import (
    AuditSettings,
    ControlSettings,
    GatewaySettings,
    HeaderCredential,
    IdentitySettings,
    IntrospectionSettings,
    IssuerSettings,
    KeysSettings,
    MtlsCredential,
    MtlsCredentialHolder,
    PoliciesSettings,
    S3Credential,
    S3CredentialHolder,
    Settings,
    SpiffeSettings,
    TlsSettings,
    UpstreamCredential,
    UpstreamKind,
    UpstreamSettings,
    split_listen,
)

__all__ = [
    "CONFIG_NAME", "AuditSettings", "ControlSettings", "DirectorySourceSettings", "GatewaySettings",
    "HeaderCredential",
    "IdentitySettings", "IntrospectionSettings", "IssuerSettings", "KeysSettings", "MtlsCredential",
    "MtlsCredentialHolder", "NetworkSettings", "PoliciesSettings", "ProvisioningSettings", "S3Credential",
    "S3CredentialHolder", "Settings", "SpiffeSettings", "TlsSettings", "UpstreamCredential",
    "UpstreamKind", "UpstreamSettings", "is_loopback", "load", "split_listen",
]  # fmt: skip
