"""A real PostgreSQL for the tests, with the real migrations, and a fresh database for whoever asks."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from sandbox.postgres import EmbeddedPostgres

NewDatabase = Callable[[], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server on which databases may be created: COUNTERSIGN_TEST_DATABASE_URL, else one of our own."""
    configured = os.environ.get("COUNTERSIGN_TEST_DATABASE_URL")
    if configured:
        yield configured.replace("postgresql+psycopg://", "postgresql://")
        return
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), fsync=False)
    try:
        yield server.start().url()
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def empty_database(postgres_url: str) -> NewDatabase:
    """Context managers that give the URL of a database without tables and drop it afterwards."""
    return _databases(postgres_url, template="template0")


@pytest.fixture(scope="session")
def new_database(postgres_url: str, empty_database: NewDatabase) -> Iterator[NewDatabase]:
    """Context managers that give the URL of a freshly migrated database and drop it afterwards.

    The migrations run once, on a database of which the others are copies.
    """
    from service.store.migrate import upgrade  # noqa: PLC0415 - tests without a database need no SQLAlchemy

    with empty_database() as template:
        upgrade(template)
        yield _databases(postgres_url, template=_name(template))


@pytest.fixture
def database_url(new_database: NewDatabase) -> Iterator[str]:
    """URL of a migrated database of this test's own."""
    with new_database() as url:
        yield url


_numbers = itertools.count(1)


def _databases(server_url: str, template: str) -> NewDatabase:
    @contextmanager
    def database() -> Iterator[str]:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        _execute(server_url, "CREATE DATABASE {} TEMPLATE {}", name, template)
        try:
            yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        finally:
            _execute(server_url, "DROP DATABASE {} WITH (FORCE)", name)

    return database


def _execute(server_url: str, statement: str, *names: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _name(database_url: str) -> str:
    return urlsplit(database_url).path.removeprefix("/")
