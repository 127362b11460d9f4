"""Faults and logs over real sockets."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from service.phala import PhalaCloud, errors

KEY = "phak_a_secret_key"
TOKEN = "a5732e36-8f4b-4c1d-9e7a-2b5c8d9e0f1a"


def test_faults_of_a_real_network():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with PhalaCloud(base_url=url, timeout=5) as client, pytest.raises(errors.NetworkError) as caught:
            client.commit_cvm_update(id="my-app", token=TOKEN)
        thread.join()
        assert caught.value.outcome_unknown
        with PhalaCloud(base_url=url, timeout=0.05) as client, pytest.raises(errors.NetworkError) as caught:
            client.commit_cvm_update(id="my-app", token=TOKEN)
        assert caught.value.outcome_unknown
        assert caught.value.timed_out
    with PhalaCloud(base_url=url, timeout=5) as client, pytest.raises(errors.NetworkError) as caught:
        client.commit_cvm_update(id="my-app", token=TOKEN)
    assert not caught.value.outcome_unknown
    assert caught.value.retryable


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    gc.collect()
    gc.disable()  # a connection of an earlier test that is collected now would log its end among ours
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield caplog
    gc.enable()


def test_calls_leave_no_trace_in_the_logs_of_http_libraries(everything_logged: pytest.LogCaptureFixture):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=b\r\n\r\n{}")
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with PhalaCloud(KEY, f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            assert client.get_commit_token_info(id="my-app", token=TOKEN) == {}
        thread.join()
    assert TOKEN not in everything_logged.text
    assert not [record for record in everything_logged.records if record.name.startswith("http")]
