from __future__ import annotations

import json
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.phala import errors
from service.phala.sse import WatchEvent, read_events
from tests.unit.phala.answering import KEY, client_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def state(status: str) -> bytes:
    return event("state", {"name": "my-app", "status": status, "boot_error": None})


def stream(*parts: bytes | Exception) -> httpx.Response:
    def chunks() -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, Exception):
                raise part
            yield part

    return httpx.Response(200, content=chunks(), headers={"content-type": "text/event-stream"})


class Streams:
    """Opens these streams in turn."""

    def __init__(self, *turns: httpx.Response | Exception) -> None:
        self.turns = list(turns)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn


def watch(streams: Streams, **options: Any) -> Any:
    with client_of(streams) as client:
        return client.watch_cvm_state(**{"id": "my-app", "target": "running", "retry_delay": 0, **options})


@pytest.mark.parametrize(
    "broken",
    [
        stream(state("starting")),  # ends without a word, not at the target
        stream(state("starting"), httpx.ReadError("reset")),
        stream(httpx.ReadTimeout("silent")),
        stream(event("timeout", {})),
        stream(event("complete", {})),  # without a state
        stream(event("state", {"status": "running"}), event("complete", {})),  # no state: it has no name
        stream(b"x" * 2_000_000),
        stream(),
        httpx.ConnectError("refused"),
        httpx.Response(502, content=b"<html>"),
        httpx.Response(409, content=b"{}"),
    ],
    ids=lambda turn: type(turn).__name__,
)
def test_a_broken_stream_is_opened_again(broken: Any):
    streams = Streams(broken, stream(state("running"), event("complete", {})))
    assert watch(streams).status == "running"
    assert len(streams.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_a_retry_cannot_help_is_raised_at_once(status: int):
    streams = Streams(httpx.Response(status))
    with pytest.raises(errors.ApiError) as caught:
        watch(streams)
    assert caught.value.status == status
    assert len(streams.requests) == 1


def test_the_error_of_the_last_attempt_is_raised():
    streams = Streams(httpx.Response(502), httpx.ConnectError("refused"))
    with pytest.raises(errors.NetworkError):
        watch(streams, max_retries=2)


def test_an_end_at_the_target_counts():
    assert watch(Streams(stream(state("starting"), state("running")))).status == "running"


def test_a_completed_watch_returns_the_last_state():
    assert (
        watch(Streams(stream(state("stopped"), event("complete", {"status": "x"}), state("later")))).status == "stopped"
    )


def test_attempts_are_counted_and_every_failure_is_told():
    seen: list[WatchEvent] = []
    streams = Streams(httpx.Response(502), stream(event("news", [1]), event("timeout", {})), stream(state("starting")))
    with pytest.raises(errors.WatchEnded) as caught:
        watch(streams, max_retries=3, on_event=seen.append)
    assert caught.value.attempts == 3
    assert [item.type for item in seen] == ["error", "news", "timeout", "state"]


def test_a_watch_can_be_stopped():
    stop = threading.Event()
    stop.set()
    streams = Streams()
    with pytest.raises(errors.WatchEnded):
        watch(streams, stop=stop)
    assert streams.requests == []


def test_a_stop_ends_the_stream_and_the_pause():
    stop = threading.Event()
    streams = Streams(stream(state("starting"), state("running"), event("complete", {})))
    with pytest.raises(errors.WatchEnded) as caught:
        watch(streams, stop=stop, on_event=lambda _event: stop.set(), retry_delay=3_600_000)
    assert caught.value.attempts == 1


def test_the_request_is_the_official_one():
    streams = Streams(stream(state("running")))
    watch(streams, interval=30, timeout=600)
    sent = streams.requests[0]
    assert str(sent.url) == "http://phala.test/api/v1/cvms/my-app/state?target=running&interval=30&timeout=600"
    assert sent.headers["accept"] == "text/event-stream"
    assert sent.headers["x-api-key"] == KEY
    assert "x-phala-version" not in sent.headers
    assert sent.extensions["timeout"]["read"] == 60.0


TEXT = (
    b'event: state\r\ndata: {"a": "\xc3\xa9"}\r\n\r\n'
    b": ping\n\n"
    b"event: x\ndata: 1\ndata: 2\n\n"
    b"data: 3\n\n"
    b"event: y\n\n"
    b"event:z\ndata:not\n\n"
    b"event: cut\ndata: 1"
)


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts: list[int]):
    edges = [0, *sorted(cuts), len(TEXT)]
    chunks = [TEXT[a:b] for a, b in pairwise(edges)]
    assert list(read_events(chunks)) == [
        WatchEvent(type="state", data={"a": "é"}),
        WatchEvent(type="x", data=2),
        WatchEvent(type="error", data={"error": "the data of an event is no JSON"}),
    ]
