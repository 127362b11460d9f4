"""Alembic's environment: the URL comes from the caller, never from a file."""

from alembic import context

from service.store import tables
from service.store.database import make_engine

attributes = context.config.attributes
engine = make_engine(attributes["database_url"], pool_size=1, lock_seconds=attributes["lock_seconds"])
try:
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=tables.Workspace.metadata, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()
