"""Create the table of what ended sign-ins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "sign_outs",
        sa.Column("principal", sa.Text, primary_key=True),
        sa.Column("before", sa.BigInteger),
        sa.Column("mfa_before", sa.BigInteger),
    )


def downgrade() -> None:
    """Refuse: going back is restoring a backup."""
    raise NotImplementedError
