"""Let API keys be bounded and be followed by another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; keys made before are bounded by nothing and followed by none."""
    op.add_column("api_keys", sa.Column("bounds", sa.JSON))
    op.add_column("api_keys", sa.Column("successor", sa.Text))


def downgrade() -> None:
    """Refuse: going back is restoring a backup."""
    raise NotImplementedError
