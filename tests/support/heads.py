"""A websocket endpoint that says what a test wants about new heads."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

HEADER = {"number": "0x5", "hash": "0x" + "AB" * 32, "parentHash": "0x" + "11" * 32}


@contextmanager
def websocket_server(handle: Callable[[ServerConnection], None]) -> Iterator[str]:
    def guarded(connection: ServerConnection) -> None:
        try:
            handle(connection)
        except ConnectionClosed:
            return  # the client left, as these tests want it to

    with serve(guarded, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/s3cret"
        finally:
            server.shutdown()
            thread.join()


def saying(*messages: object) -> Callable[[ServerConnection], None]:
    """Answer the subscription with these messages, then wait for the client to leave."""

    def handle(connection: ServerConnection) -> None:
        asked = json.loads(connection.recv())
        assert (asked["method"], asked["params"]) == ("eth_subscribe", ["newHeads"])
        for message in messages:
            connection.send(message if isinstance(message, str | bytes) else json.dumps(message))
        connection.recv()

    return handle


ACCEPTED = {"jsonrpc": "2.0", "id": 1, "result": "0xsub"}


def head(result: object, subscription: str = "0xsub") -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": "eth_subscription", "params": {"subscription": subscription, "result": result}}
