import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from sandbox.postgres import EmbeddedPostgres
from sandbox.processes import ProcessError
from sandbox.redis_server import EmbeddedRedis
from tests.support.postgres import NewDatabase


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody can reach (pytest's own are the user's alone)."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture(params=["open_place", "tmp_path"])
def place(request: pytest.FixtureRequest) -> Path:
    """Where the files go: both for a root parent, whose server runs as somebody else, and for an ordinary one."""
    where: Path = request.getfixturevalue(request.param)
    return where


@pytest.fixture
def postgres(open_place: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(open_place / "postgres", fsync=False)
    try:
        yield server
    finally:
        server.destroy()


def value_of(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def keep_a_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS number")


def test_databases_survive_a_stop_and_a_kill(place: Path):
    postgres = EmbeddedPostgres(place / "postgres")
    url = postgres.start().ensure_database("app")
    keep_a_row(url)

    postgres.stop()
    postgres.start()
    assert value_of(postgres.ensure_database("app"), "SELECT number FROM kept") == 42

    postgres.process.kill()
    postgres = EmbeddedPostgres(place / "postgres")
    assert value_of(postgres.start().url("app"), "SELECT number FROM kept") == 42

    cluster = (place / "postgres" / "cluster").resolve()
    postgres.destroy()
    assert not (place / "postgres").exists()
    assert not cluster.exists()


def test_a_cluster_that_was_cleaned_away_is_made_anew(place: Path):
    postgres = EmbeddedPostgres(place / "postgres", fsync=False)
    postgres.start().ensure_database("app")
    postgres.stop()
    shutil.rmtree((place / "postgres" / "cluster").resolve().parent)

    try:
        assert value_of(postgres.start().url(), "SELECT 1") == 1
    finally:
        postgres.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only a root parent puts the cluster elsewhere")
def test_a_cluster_put_elsewhere_does_not_outlive_its_directory_for_long(tmp_path: Path):
    abandoned = EmbeddedPostgres(tmp_path / "abandoned", fsync=False)
    with abandoned, EmbeddedPostgres(tmp_path / "kept", fsync=False):
        pass
    homes = [(tmp_path / name / "cluster").resolve().parent for name in ("abandoned", "kept")]
    shutil.rmtree(tmp_path / "abandoned")
    for home in homes:
        os.utime(home, (0, 0))

    with EmbeddedPostgres(tmp_path / "later", fsync=False) as later:
        assert [home.exists() for home in homes] == [False, True]
    later.destroy()
    EmbeddedPostgres(tmp_path / "kept").destroy()


@pytest.mark.parametrize(("fsync", "setting"), [(True, "on"), (False, "off")])
def test_it_writes_through_unless_told_otherwise(open_place: Path, fsync: bool, setting: str):
    with EmbeddedPostgres(open_place / "postgres", fsync=fsync) as postgres:
        assert value_of(postgres.url(), "SHOW fsync") == setting


def test_only_this_machine_gets_in_and_only_with_the_password(postgres: EmbeddedPostgres):
    url = postgres.start().url()

    assert value_of(url, "SHOW listen_addresses") == "127.0.0.1"
    assert value_of(url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
    password = url.split(":")[2].split("@")[0]
    assert len(password) == 48
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(password, "guess"))


def test_a_cluster_in_use_is_not_started_twice(open_place: Path, postgres: EmbeddedPostgres):
    postgres.start()

    with pytest.raises(ProcessError, match=r"PostgreSQL already runs on .* \(pid \d+\): stop it first"):
        EmbeddedPostgres(open_place / "postgres").start()

    assert value_of(postgres.url(), "SELECT 1") == 1


def test_a_lock_whose_process_id_now_is_another_program_is_no_hindrance(postgres: EmbeddedPostgres, open_place: Path):
    postgres.start()
    lock = open_place / "postgres" / "cluster" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    postgres.process.kill()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:], ""]))
    if os.geteuid() == 0:
        shutil.chown(lock, "nobody")

    assert value_of(postgres.start().url(), "SELECT 1") == 1


def test_an_interrupted_initdb_is_begun_anew(postgres: EmbeddedPostgres, open_place: Path):
    unfinished = open_place / "postgres" / "cluster.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    assert value_of(postgres.start().url(), "SELECT 1") == 1
    assert not unfinished.exists()


def test_a_port_that_is_taken_is_said(open_place: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedPostgres(open_place / "postgres", port=taken.getsockname()[1], fsync=False)
        with pytest.raises(ProcessError, match=r"(?s)PostgreSQL ended with code 1.*Address already in use"):
            server.start()


def test_the_pieces_that_tests_use(database_url: str, new_database: NewDatabase, redis_url: str):
    assert value_of(database_url, "SELECT count(*) FROM change_requests") == 0
    with new_database() as another:
        assert another != database_url
        assert value_of(another, "SELECT count(*) FROM alembic_version") == 1
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(another)
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_redis_answers_only_with_the_password_and_starts_again_where_it_was(tmp_path: Path):
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        stranger = redis.Redis(port=server.port, retry=None)
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()

        server.process.kill()
        server.start()

        assert client.get("key") is None
    assert not server.process.running
    assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
