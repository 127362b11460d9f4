"""Alembic's environment: the URL comes from the caller, never from a file."""

from alembic import context

from service.store.database import make_engine
from service.store.tables import Base

engine = make_engine(context.config.attributes["database_url"], pool_size=1)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
