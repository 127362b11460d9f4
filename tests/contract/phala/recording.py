"""A local HTTP server that records requests and plays back answers."""

from __future__ import annotations

import json
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Headers that say something about the HTTP library, not about the call.
UNIMPORTANT_HEADERS = frozenset(
    {
        "host",
        "connection",
        "user-agent",
        "content-length",
        "accept-encoding",
        "accept-language",
        "sec-fetch-mode",
        "transfer-encoding",
    }
)


@dataclass(frozen=True)
class Recorded:
    method: str
    target: str
    headers: dict[str, str]
    body: str

    def as_vector(self) -> dict[str, Any]:
        """The members of a recorded request in the vector files that are facts."""
        return {
            "method": self.method,
            "raw_target": self.target,
            "headers": self.headers,
            "body_raw": self.body or None,
        }


@dataclass
class RecordingServer:
    """Plays one list of answers, or one for each first segment of the path (so that many calls can be told apart)."""

    url: str
    requests: list[Recorded] = field(default_factory=list)
    answers: deque[dict[str, Any]] = field(default_factory=deque)
    answers_below: dict[str, deque[dict[str, Any]]] = field(default_factory=dict)
    respond: Callable[[Recorded], dict[str, Any]] | None = None

    def play(self, answers: Iterable[dict[str, Any]]) -> None:
        """Answer with these, one each; the last one again and again."""
        self.requests.clear()
        self.answers = deque(answers)

    def play_below(self, segment: str, answers: Iterable[dict[str, Any]]) -> None:
        """The same for the paths below one segment."""
        self.answers_below[segment] = deque(answers)

    def requests_below(self, segment: str) -> list[Recorded]:
        """What was recorded there, as if it had been sent to the root."""
        start = f"/{segment}/"
        return [replace(r, target=r.target[len(start) - 1 :]) for r in self.requests if r.target.startswith(start)]

    def next_answer(self, target: str) -> dict[str, Any]:
        answers = self.answers_below.get(target.split("/")[1], self.answers)
        if not answers:
            return {"status": 404, "body": {"detail": "no answer prepared"}}
        return answers.popleft() if len(answers) > 1 else answers[0]


def _content(answer: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    headers = {name.lower(): value for name, value in answer.get("headers", {}).items()}
    if "body" not in answer:
        return b"", headers
    if isinstance(answer["body"], str):
        return answer["body"].encode(), headers
    headers.setdefault("content-type", "application/json")
    return json.dumps(answer["body"]).encode(), headers


@contextmanager
def recording_server() -> Iterator[RecordingServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept = {name: value for name, value in headers.items() if name not in UNIMPORTANT_HEADERS}
            recorded = Recorded(self.command, self.path, kept, body.decode())
            state.requests.append(recorded)
            answer = state.respond(recorded) if state.respond else state.next_answer(self.path)
            content, sent = _content(answer)
            self.send_response(answer["status"], answer.get("reason"))
            for name, value in sent.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - names that http.server calls

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = RecordingServer(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
