"""What is repeated and what is not, before a server that misbehaves."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.client.http import AnswerLost, Api, ApiError


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes] | None] = []
        self.seen: list[tuple[str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.seen.append((self.command, self.headers.get("Idempotency-Key")))
        answer = self.server.answers.pop(0)
        self.close_connection = True
        if answer is None:
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        self.end_headers()
        self.wfile.write(answer[1])

    do_GET = do_POST = _answer  # noqa: N815 - named by http.server

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def api(server: _Server) -> Iterator[Api]:
    with Api(f"http://127.0.0.1:{server.server_port}", "key", delays=(0.0, 0.0)) as api:
        yield api


def test_reads_are_repeated(server: _Server, api: Api):
    server.answers = [None, (503, b""), (200, b'{"id": "cr_1"}')]
    assert api.read("cr_1") == {"id": "cr_1"}


def test_reads_are_given_up(server: _Server, api: Api):
    server.answers = [None, None, None]
    with pytest.raises(ApiError, match="cannot be reached"):
        api.read("cr_1")


@pytest.mark.parametrize("answer", [None, (503, b""), (500, b"<html>")])
def test_a_submission_is_sent_once(server: _Server, api: Api, answer: tuple[int, bytes] | None):
    server.answers = [answer]
    with pytest.raises(AnswerLost):
        api.submit({}, "a-key")
    assert server.seen == [("POST", "a-key")]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"[" * 2_000])
def test_another_server_is_told_from_the_api(server: _Server, api: Api, body: bytes):
    server.answers = [(200, body)]
    with pytest.raises(ApiError, match="no Countersign API"):
        api.read("cr_1")
