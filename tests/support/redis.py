"""A real Redis for the tests, empty for each."""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis

from sandbox.redis_server import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a database to flush at will: COUNTERSIGN_TEST_REDIS_URL, else that of a server of our own.

    Processes of a parallel run take the databases from the configured one's number on.
    """
    configured = os.environ.get("COUNTERSIGN_TEST_REDIS_URL")
    if configured:
        url = urlsplit(configured)
        number = int(url.path.strip("/") or 0) + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        yield url._replace(path=f"/{number}").geturl()
        return
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """URL of an empty Redis database."""
    with redis.Redis.from_url(redis_server_url) as client:
        client.flushdb()
    return redis_server_url
