"""What is repeated and what is not, before a server that misbehaves."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.client.http import AnswerLost, Api, ApiError

Answer = tuple[Any, ...]
"""Status, body and, if any, one header; None closes the connection without an answer."""


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, bind_and_activate=False)
        self.server_bind()  # until `server_activate`, connections are refused
        self.answers: list[Answer | None] = []
        self.seen: list[tuple[str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.seen.append((self.command, self.headers.get("Idempotency-Key")))
        answer = self.server.answers.pop(0) if self.server.answers else None
        self.close_connection = True
        if answer is None:
            return
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(answer[1])))
        for header in answer[2:]:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(answer[1])

    do_GET = do_POST = _answer  # noqa: N815 - named by http.server

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def api(server: _Server) -> Iterator[Api]:
    with _api(server, [].append) as api:
        yield api


def _api(server: _Server, sleep: Callable[[float], None], notice: Callable[[str], None] = lambda _: None) -> Api:
    """A client whose pauses take no time."""
    return Api(f"http://127.0.0.1:{server.server_port}", "key", notice=notice, patience=3, sleep=sleep)


def test_reads_are_repeated(server: _Server, api: Api):
    server.answers = [None, (503, b""), (200, b'{"id": "cr_1"}')]
    assert api.read("cr_1") == {"id": "cr_1"}


def test_reads_are_given_up(server: _Server):
    pauses: list[float] = []
    notices: list[str] = []
    with _api(server, pauses.append, notices.append) as api, pytest.raises(ApiError, match="cannot be reached"):
        api.read("cr_1")
    assert pauses == [0.5, 1, 2]
    assert [line.rpartition("; ")[2] for line in notices] == ["trying again for 3 seconds"]


def test_the_server_says_when_to_ask_again(server: _Server):
    pauses: list[float] = []
    server.answers = [(429, b"", ("Retry-After", "2")), (200, b"{}")]
    with _api(server, pauses.append) as api:
        assert api.read("cr_1") == {}
    assert pauses == [2]


IN_PROGRESS = b'{"type": "https://countersign.example/problems/idempotency_in_progress", "title": "wait"}'


@pytest.mark.fault(
    "clients",
    "The answer to a submission of the command line is lost",
    "it is sent again under its key, and gets the answer of the first",
    "half a minute of tries",
)
@pytest.mark.parametrize(
    "answer", [None, (429, b""), (502, b"<html>"), (503, b""), (504, b""), (409, IN_PROGRESS)], ids=str
)
def test_a_submission_is_sent_again_with_its_key(server: _Server, answer: Answer | None):
    server.answers = [answer, answer, (202, b'{"id": "cr_1"}')]
    notices: list[str] = []
    with _api(server, [].append, notices.append) as api:
        assert api.submit({}, "a-key") == {"id": "cr_1"}
    assert server.seen == [("POST", "a-key")] * 3
    assert [line.rpartition("; ")[2] for line in notices] == ["trying again for 3 seconds"]


def test_an_act_is_sent_again_with_a_key_of_its_own(server: _Server, api: Api):
    server.answers = [None, (202, b"{}"), (202, b"{}")]
    api.act("cr_1", "cancel")
    api.act("cr_1", "cancel")
    first, again, other = (key for _, key in server.seen)
    assert first == again != other


def test_a_submission_without_an_answer_is_given_up_and_may_be_stored(server: _Server):
    pauses: list[float] = []
    with _api(server, pauses.append) as api, pytest.raises(AnswerLost):
        api.submit({}, "a-key")
    assert pauses == [0.5, 1, 2]


def test_a_lost_answer_is_not_forgotten_when_the_server_goes_away(server: _Server):
    def go_away(_: float) -> None:
        server.socket.close()

    with _api(server, go_away) as api, pytest.raises(AnswerLost, match="cannot be reached: "):
        api.submit({}, "a-key")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("answer", "fault"),
    [((500, b"<html>"), AnswerLost), ((409, b'{"type": "/problems/cvm_busy"}'), ApiError), ((422, b"{}"), ApiError)],
)
def test_what_would_be_answered_the_same_again_is_not_repeated(server: _Server, answer: Answer, fault: type[ApiError]):
    server.answers = [answer]
    with _api(server, [].append) as api, pytest.raises(ApiError) as refused:
        api.submit({}, "a-key")
    assert type(refused.value) is fault
    assert len(server.seen) == 1


def test_a_submission_is_sent_again_while_there_was_no_connection():
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        server.answers = [(202, b'{"id": "cr_1"}')]
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                server.server_activate()
                thread.start()

        with _api(server, pause) as api:
            assert api.submit({}, "a-key") == {"id": "cr_1"}
        assert server.seen == [("POST", "a-key")]
        server.shutdown()
        thread.join()


def test_a_submission_that_never_left_is_not_called_lost():
    with (
        _Server() as server,
        _api(server, [].append) as api,
        pytest.raises(ApiError, match="nothing was sent") as refused,
    ):
        api.submit({}, "a-key")
    assert not isinstance(refused.value, AnswerLost)


def test_a_redirect_is_not_followed(server: _Server, api: Api):
    server.answers = [(301, b"", ("Location", "http://elsewhere.example/"))]
    with pytest.raises(ApiError, match="leads elsewhere"):
        api.read("cr_1")
    assert len(server.seen) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"[" * 2_000])
def test_another_server_is_told_from_the_api(server: _Server, api: Api, body: bytes):
    server.answers = [(200, body)]
    with pytest.raises(ApiError, match="no Countersign API"):
        api.read("cr_1")
