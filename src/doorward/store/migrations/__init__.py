"""Alembic migrations, run when the control process starts."""
