"""Let a key be the public key of a client that signs assertions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("api_keys", sa.Column("public_key", sa.JSON))


def downgrade() -> None:
    """Refuse: going back is restoring a backup."""
    raise NotImplementedError
