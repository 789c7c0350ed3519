"""Create the tables of what sources outside state, and of the objects they provision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; what was stated before stays as it is."""
    op.create_table(
        "statements",
        sa.Column("uid", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("attrs", sa.JSON, nullable=False),
        sa.Column("parents", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("max_age", sa.Float),
    )
    op.create_table(
        "provisioned",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("link", sa.JSON),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("modified", sa.BigInteger, nullable=False),
        sa.Column("gone", sa.BigInteger),
    )
    op.create_table(
        "sources",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seen", sa.BigInteger),
        sa.Column("cookie", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("held_back", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Refuse: going back is restoring a backup."""
    raise NotImplementedError
