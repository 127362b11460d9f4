"""A webhook receiver that verifies what it gets with the official Standard Webhooks library."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY = 1_000_000


@dataclass(frozen=True, slots=True)
class Received:
    """One delivery. ``verified`` says whether its signature held."""

    message_id: str
    payload: dict[str, Any]
    verified: bool


class Receiver:
    """Listens on a free local port from construction on."""

    def __init__(self, secret: str) -> None:
        """Take the endpoint's secret (``whsec_…``)."""
        self._webhook = Webhook(secret)
        self._received: list[Received] = []
        self._refusals = 0
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to send."""
        return f"http://127.0.0.1:{self._server.server_port}/hooks"

    def received(self) -> list[Received]:
        """What came so far, in order of arrival."""
        with self._changed:
            return list(self._received)

    def wait_for(self, count: int, seconds: float) -> bool:
        """Whether deliveries of ``count`` different events came within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: len({one.message_id for one in self._received}) >= count, seconds)

    def refuse(self, times: int) -> None:
        """Answer the next deliveries with 500, repeating what they said."""
        with self._changed:
            self._refusals = times

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _refuses(self) -> bool:
        with self._changed:
            refuses = self._refusals > 0
            self._refusals -= refuses
            return refuses

    def _take(self, headers: dict[str, str], body: bytes) -> bool:
        try:
            self._webhook.verify(body, headers)
            verified = True
        except WebhookVerificationError:
            verified = False
        with self._changed:
            self._received.append(Received(headers.get("webhook-id", ""), json.loads(body), verified))
            self._changed.notify_all()
        return verified

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = min(int(self.headers.get("content-length", 0)), MAX_BODY)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(size)
                if receiver._refuses():
                    self.send_response(500)
                    self.end_headers()
                    self.wfile.write(repr(headers).encode() + body)
                    return
                verified = receiver._take(headers, body)
                self.send_response(204 if verified else 401)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        return Handler
