"""Column types that mean the same on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Text
from sqlalchemy.types import TypeDecorator

from doorward.core.model import EntityUid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """An aware time as whole microseconds since 1970 in UTC: exact, sortable, no time zone to lose."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 -- SQLAlchemy's signature
        """Return the microseconds; raise TypeError for a naive time."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- SQLAlchemy's signature
        """Return the time in UTC."""
        return None if value is None else _EPOCH + int(value) * _MICROSECOND


class Uid(TypeDecorator[EntityUid]):
    """An entity's name in Cedar's full form: `Doorward::User::"dana"`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: EntityUid | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- SQLAlchemy's signature
        """Return the text."""
        return None if value is None else value.cedar

    def process_result_value(self, value: Any | None, dialect: Dialect) -> EntityUid | None:  # noqa: ARG002 -- SQLAlchemy's signature
        """Return the name."""
        return None if value is None else EntityUid.parse(str(value))
