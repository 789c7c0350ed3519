"""The tables. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from doorward.store.columns import Moment, Uid

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row: the version that the other directory tables are at.
directory_version = Table(
    "directory_version",
    metadata,
    Column("one", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
)
entities = Table(
    "entities",
    metadata,
    Column("type", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("attrs", JSON, nullable=False),
    Column("parents", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("access_key_id", Text),
    Column("generation", Integer, nullable=False),
    Column("subject", Uid, nullable=False, index=True),
    Column("device", Uid),
    Column("purpose", Text),
    Column("networks", JSON, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
    Column("bounds", JSON),
    Column("successor", Text),
    Column("public_key", JSON),
    UniqueConstraint("hash"),
    UniqueConstraint("access_key_id"),
)
# `declared`: stated by a file, so that leaving it out of the file takes it away.
identities = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("principal", Uid, nullable=False, index=True),
    Column("declared", Boolean, nullable=False, server_default=false()),
)
# A revoked certificate stays, so that a file that still states it cannot bind it again.
certificates = Table(
    "certificates",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("device", Uid, nullable=False, index=True),
    Column("expires", Moment, nullable=False),
    Column("declared", Boolean, nullable=False, server_default=false()),
    Column("revoked", Moment),
)
revoked_tokens = Table(
    "revoked_tokens",
    metadata,
    Column("jti", Text, primary_key=True),
    Column("expires", Moment, nullable=False, index=True),
)
sign_outs = Table(
    "sign_outs",
    metadata,
    Column("principal", Uid, primary_key=True),
    Column("before", Moment),
    Column("mfa_before", Moment),
)
zones = Table(
    "zones", metadata, Column("name", Text, primary_key=True), Column("networks", JSON, nullable=False)
)
lowered_assets = Table(
    "lowered_assets",
    metadata,
    Column("asset", Text, primary_key=True),
    Column("operator", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time", Moment, nullable=False),
)
changes = Table(
    "changes",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("time", Moment, nullable=False),
    Column("operator", Text, nullable=False),
    Column("delta", JSON, nullable=False),
)
# What sources outside state, and under `org` what files state of the same entity.
statements = Table(
    "statements",
    metadata,
    Column("uid", Uid, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("attrs", JSON, nullable=False),
    Column("parents", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("seen", Moment, nullable=False),
    Column("max_age", Float),
)
provisioned = Table(
    "provisioned",
    metadata,
    Column("source", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("uid", Uid, nullable=False),
    Column("name", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("link", JSON),
    Column("document", JSON, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created", Moment, nullable=False),
    Column("modified", Moment, nullable=False),
    Column("gone", Moment),
)
sources = Table(
    "sources",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seen", Moment),
    Column("cookie", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("held_back", Integer, nullable=False),
)

links = Table(
    "links",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("used", Moment),
    Column("principal", Uid),
)
passkeys = Table(
    "passkeys",
    metadata,
    Column("credential_id", LargeBinary, primary_key=True),
    Column("principal", Uid, nullable=False, index=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", Integer, nullable=False),
    Column("created", Moment, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("principal", Uid),
    Column("operator", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("last_seen", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    Column("mfa_at", Moment),
    Column("zone", Text, nullable=False, server_default=""),
    Column("browser", Text, nullable=False, server_default=""),
    Index("ix_sessions_principal", "principal"),
)
authenticators = Table(
    "authenticators",
    metadata,
    Column("principal", Uid, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created", Moment, nullable=False),
    Column("last_step", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("locked", Moment),
)
sign_ins = Table(
    "sign_ins",
    metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Uid, nullable=False, index=True),
    Column("client", Text, nullable=False),
    Column("resources", JSON, nullable=False),
    Column("signed_in_at", Moment, nullable=False),
    Column("acr", Text, nullable=False),
    Column("amr", JSON, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
    Column("bounds", JSON),
    Column("proof_key", Text),
)
# Used ones stay as long as their sign-in: one that comes again was stolen.
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("sign_in", Text, nullable=False, index=True),
    Column("used", Moment),
)
recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("principal", Uid, nullable=False, index=True),
    Column("created", Moment, nullable=False),
)
