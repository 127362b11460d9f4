"""A real Redis for the tests, empty for each."""

import os
from collections.abc import Iterator

import pytest
import redis

from sandbox.redis_server import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a database to flush at will: COUNTERSIGN_TEST_REDIS_URL, else that of a server of our own."""
    configured = os.environ.get("COUNTERSIGN_TEST_REDIS_URL")
    if configured:
        yield configured
        return
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """URL of an empty Redis database."""
    with redis.Redis.from_url(redis_server_url) as client:
        client.flushdb()
    return redis_server_url
