"""Create the tables of authenticator apps and recovery codes; say where sessions were opened."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them; sessions opened before end, since nobody noted where they were."""
    op.add_column("links", sa.Column("principal", sa.Text))
    op.execute(sa.text("DELETE FROM sessions"))
    op.add_column("sessions", sa.Column("mfa_at", sa.BigInteger))
    op.add_column("sessions", sa.Column("zone", sa.Text, nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("browser", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "authenticators",
        sa.Column("principal", sa.Text, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("last_step", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked", sa.BigInteger),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("principal", sa.Text, nullable=False, index=True),
        sa.Column("created", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Refuse: going back is restoring a backup."""
    raise NotImplementedError
