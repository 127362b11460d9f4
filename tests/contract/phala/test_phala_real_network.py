"""Faults and logs over real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

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


_CALL_WITH_EVERYTHING_LOGGED = """
import logging, sys
from service.phala import PhalaCloud

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s %(message)s")
for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
    logging.getLogger(name).setLevel(logging.DEBUG)
key, url, token = sys.argv[1:]
logging.getLogger("caller").debug("calls")
with PhalaCloud(key, url) as client:
    assert client.get_commit_token_info(id="my-app", token=token) == {}
"""


def test_calls_leave_no_trace_in_the_logs_of_http_libraries():
    # In a process of its own: what is left of other tests' connections would log its end among these lines.
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=b\r\n\r\n{}")
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-c", _CALL_WITH_EVERYTHING_LOGGED, KEY, url, TOKEN]
        logged = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        thread.join()
    assert logged.returncode == 0, logged.stderr
    assert logged.stdout == "caller calls\n"
    assert logged.stderr == ""
