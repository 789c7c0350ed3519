"""Create the directory's and the console's tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table of the first version."""
    _directory()
    _credentials()
    _history()
    _console()


def downgrade() -> None:
    """Refuse: going back is restoring a backup."""
    raise NotImplementedError


def _directory() -> None:
    op.create_table(
        "directory_version",
        sa.Column("one", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.execute("INSERT INTO directory_version (one, version) VALUES (1, 0)")
    op.create_table(
        "entities",
        sa.Column("type", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("attrs", sa.JSON, nullable=False),
        sa.Column("parents", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
    )
    op.create_table(
        "zones",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("networks", sa.JSON, nullable=False),
    )
    op.create_table(
        "lowered_assets",
        sa.Column("asset", sa.Text, primary_key=True),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
    )


def _credentials() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("access_key_id", sa.Text),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("subject", sa.Text, nullable=False, index=True),
        sa.Column("device", sa.Text),
        sa.Column("purpose", sa.Text),
        sa.Column("networks", sa.JSON, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.UniqueConstraint("access_key_id", name="uq_api_keys_access_key_id"),
    )
    op.create_table(
        "identities",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("principal", sa.Text, nullable=False, index=True),
        sa.Column("declared", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "certificates",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("device", sa.Text, nullable=False, index=True),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("declared", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("revoked", sa.BigInteger),
    )
    op.create_table(
        "revoked_tokens",
        sa.Column("jti", sa.Text, primary_key=True),
        sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    )


def _history() -> None:
    op.create_table(
        "changes",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("delta", sa.JSON, nullable=False),
    )


def _console() -> None:
    op.create_table(
        "links",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger),
    )
    op.create_table(
        "passkeys",
        sa.Column("credential_id", sa.LargeBinary, primary_key=True),
        sa.Column("principal", sa.Text, nullable=False, index=True),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("principal", sa.Text, index=True),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
