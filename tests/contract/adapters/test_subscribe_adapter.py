"""New heads by websocket: a real anvil, and servers that die, stall or say something else."""

import json
import logging
import socket
import threading
from dataclasses import dataclass

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection

from sandbox.anvil import Anvil
from service.adapters.subscribe import Rhythm, new_heads
from service.domain.chain import Block
from service.domain.errors import Nonsense, Unreachable
from service.domain.reasons import Reason
from tests.support.heads import ACCEPTED, HEADER, head, saying, websocket_server


@pytest.mark.chain
def test_every_mined_block_is_announced(anvil: Anvil):
    stop = threading.Event()
    heads = new_heads(anvil.ws_url, stop)
    seen: list[Block] = []
    listening = threading.Event()

    def listen() -> None:
        for heard in heads:
            listening.set()
            seen.append(heard)
            if len(seen) == 4:
                stop.set()

    thread = threading.Thread(target=listen)
    thread.start()
    while not listening.wait(0.05):  # the first head proves that the subscription stands
        anvil.rpc("anvil_mine", [1])
    while thread.is_alive():
        anvil.rpc("anvil_mine", [1])
        thread.join(0.05)
    hashes = [anvil.rpc("eth_getBlockByNumber", [hex(head.number), False])["hash"] for head in seen]
    assert [head.hash for head in seen] == hashes
    assert [head.number for head in seen] == list(range(seen[0].number, seen[0].number + 4))


@pytest.mark.chain
def test_stop_ends_a_silent_subscription(anvil: Anvil):
    stop = threading.Event()
    stop.set()
    assert list(new_heads(anvil.ws_url, stop)) == []


@pytest.mark.chain
def test_a_node_that_goes_away_is_noticed():
    stop = threading.Event()
    with Anvil(chain_id=1, block_time=1) as node:
        heads = new_heads(node.ws_url, stop, timeout=5)
        assert next(heads).number >= 0
        node.stop()
        with pytest.raises(Unreachable) as fault:
            list(heads)
    assert fault.value.reason is Reason.RPC_UNREACHABLE


def test_heads_are_normalised_and_may_overtake_the_answer():
    with websocket_server(saying(head(HEADER), ACCEPTED, head(HEADER))) as url:
        heads = new_heads(url, threading.Event(), timeout=5)
        assert next(heads) == Block(5, "0x" + "ab" * 32)
        heads.close()  # type: ignore[attr-defined] - a generator


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        (({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}},), Unreachable),
        (({"jsonrpc": "2.0", "id": 1, "result": None},), Unreachable),
        (("garbage",), Nonsense),
        (([1],), Nonsense),
        (("[" * 100_000,), Nonsense),
        ((ACCEPTED, "garbage"), Nonsense),
        ((ACCEPTED, {"jsonrpc": "2.0"}), Nonsense),
        ((ACCEPTED, head(HEADER, "0xother")), Nonsense),
        ((ACCEPTED, head({"number": 5, "hash": HEADER["hash"]})), Nonsense),
        ((ACCEPTED, head(None)), Nonsense),
        ((ACCEPTED, "x" * 2_000_000), Unreachable),
    ],
    ids=lambda value: str(value)[:60],
)
def test_anything_but_heads_ends_the_subscription(messages: tuple[object, ...], fault: type[Unreachable]):
    with websocket_server(saying(*messages)) as url, pytest.raises(Unreachable) as raised:
        list(new_heads(url, threading.Event(), timeout=5))
    assert type(raised.value) is fault
    assert "s3cret" not in str(raised.value)


def test_a_server_that_closes_ends_the_subscription():
    with websocket_server(lambda connection: connection.close()) as url, pytest.raises(Unreachable):
        list(new_heads(url, threading.Event(), timeout=5))


def test_no_answer_to_the_subscription():
    def handle(connection: ServerConnection) -> None:
        for _ in connection:  # listens, says nothing
            pass

    with websocket_server(handle) as url, pytest.raises(Unreachable):
        list(new_heads(url, threading.Event(), timeout=0.2))


def _freeze_after_one_head(listener: socket.socket, over: threading.Event) -> None:
    """Shake hands, announce one head, then read no more: the kernel still acknowledges what the client sends."""
    connection, _ = listener.accept()
    with connection:
        protocol = ServerProtocol()
        events: list[object] = []
        while not events:
            protocol.receive_data(connection.recv(4096))
            events = protocol.events_received()
        (request,) = events
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        for message in (ACCEPTED, head(HEADER)):
            protocol.send_text(json.dumps(message).encode())
        for chunk in protocol.data_to_send():
            connection.sendall(chunk)
        over.wait(20)


def test_a_dead_socket_is_noticed_by_its_unanswered_ping():
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_freeze_after_one_head, args=(listener, over))
        thread.start()
        try:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
            heads = new_heads(url, threading.Event(), timeout=0.3)
            assert next(heads).number == 5
            with pytest.raises(Unreachable):
                list(heads)
        finally:
            over.set()
            thread.join()


def test_a_server_that_falls_silent_but_answers_pings_is_noticed():
    with websocket_server(saying(ACCEPTED, head(HEADER))) as url:
        heads = new_heads(url, threading.Event(), timeout=0.1, patience=0.4)
        assert next(heads).number == 5
        with pytest.raises(Unreachable) as fault:
            list(heads)
    assert fault.value.detail == "websocket endpoint: no new head for too long"


def test_a_server_that_says_nothing_at_all_is_noticed():
    with websocket_server(saying(ACCEPTED)) as url, pytest.raises(Unreachable):
        list(new_heads(url, threading.Event(), patience=0.2))


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_chain_may_be_as_slow_as_it_usually_is():
    clock = Clock()
    rhythm = Rhythm(30, clock)
    for clock.seconds in (1.0, 7.0, 13.0, 19.0):
        rhythm.beat()
    for clock.seconds in (50.0, 79.0):
        assert not rhythm.silent_for_too_long()
    clock.seconds = 79.1
    assert rhythm.silent_for_too_long()


def test_before_there_is_a_rhythm_patience_decides():
    clock = Clock()
    rhythm = Rhythm(30, clock)
    rhythm.beat()
    clock.seconds = 30.0
    assert not rhythm.silent_for_too_long()
    clock.seconds = 30.1
    assert rhythm.silent_for_too_long()


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:9/s3cret", "http://s3cret", "ws://", "s3cret", "ws://s3cret.invalid/", "ws://[s3cret"]
)
def test_an_address_that_cannot_be_reached_is_not_shown(url: str):
    with pytest.raises(Unreachable) as fault:
        list(new_heads(url, threading.Event(), timeout=2))
    assert "s3cret" not in str(fault.value)
    assert fault.value.__cause__ is None or "s3cret" not in str(fault.value.__cause__)


def test_no_log_names_the_url(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG), websocket_server(saying(ACCEPTED, head(HEADER))) as url:
        next(new_heads(url, threading.Event(), timeout=5))
    assert "s3cret" not in caplog.text
