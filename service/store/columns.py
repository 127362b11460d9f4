"""What the tables have in common: names of constraints, types of columns, and the columns of a leased row."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def storable(text: str) -> str:
    """Text with a replacement in place of what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


class AnyText(TypeDecorator[str]):
    """Text that PostgreSQL can always store.

    It takes neither NUL nor half a surrogate pair, while upstreams send what they like; a fault that cannot be written
    down would be met again and again.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the interface
        """The value with a replacement in place of what cannot be stored."""
        return None if value is None else storable(value)


class Base(DeclarativeBase):
    """Naming of constraints, so that migrations can name them too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: AnyText,
        int: BigInteger,
        bytes: LargeBinary,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(AnyText),
    }


class Leased:
    """Columns of a row that a worker serves: when it is due, and who holds it."""

    due_at: Mapped[datetime | None]
    rung_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(server_default=text("0"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))


def plain(*values: str) -> list[ColumnElement[str]]:
    """Known words in a statement's own text.

    A statement is planned once for all its parameters: whether a partial index serves shows with plain words only.
    """
    return [literal_column(repr(str(value)), Text) for value in values]


def one_of(column: str, values: frozenset[Any] | type[Any]) -> str:
    """SQL of a CHECK that a column holds one of some values."""
    return f"{column} IN ({', '.join(sorted(repr(str(value)) for value in values))})"
