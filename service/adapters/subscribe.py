import json
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json
from websockets.exceptions import InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from service.adapters.chain_shapes import WrongShape, block_of
from service.domain.chain import Block
from service.domain.errors import Nonsense, Unreachable
from service.domain.reasons import Reason

_MAX_MESSAGE = 1024 * 1024  # a header is below 10 KB
_LOOK_FOR_STOP_SECONDS = 0.5
_INTERVALS = 10  # of the newest heads; as many usual ones without a head are too long
_REASON = Reason.RPC_UNREACHABLE
_SUBSCRIBE = {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}


def new_heads(ws_url: str, stop: threading.Event, *, timeout: float = 10.0, patience: float = 60.0) -> Iterator[Block]:
    """Every new head an endpoint announces (``eth_subscribe``), until ``stop`` is set.

    A doorbell: heads can be announced twice, left out, or belong to a branch that is dropped. The caller looks
    for itself, and polls when this raises.

    Args:
        ws_url: ``ws`` or ``wss`` URL; may hold credentials and is never shown.
        stop: ends the iteration within half a second.
        timeout: seconds for the handshake and the first answer. A ping goes out as often; a socket that leaves
            it unanswered as long is dead.
        patience: seconds without a head after which the subscription does not count as one any more, or ten times
            the usual time between heads if that is longer. A server may answer pings and have forgotten it.

    Raises:
        Unreachable: no connection, no subscription, the connection was lost, or no head came for too long.
        Nonsense: something else than heads came.
    """
    try:
        with connect(
            ws_url,
            open_timeout=timeout,
            ping_interval=timeout,
            ping_timeout=timeout,
            close_timeout=1,
            max_size=_MAX_MESSAGE,
        ) as socket:
            subscription = _subscribe(socket, timeout)
            yield from _heads(socket, subscription, stop, patience)
    except (InvalidURI, ValueError):
        raise Unreachable("the websocket endpoint's URL is not valid", reason=_REASON) from None  # it quotes the URL
    except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
        raise Unreachable(f"websocket endpoint: {type(error).__name__}", reason=_REASON) from error


def _subscribe(socket: ClientConnection, timeout: float) -> str:
    socket.send(json.dumps(_SUBSCRIBE))
    answer = _message(socket.recv(timeout=timeout))
    while "id" not in answer:  # a head can overtake the answer
        answer = _message(socket.recv(timeout=timeout))
    subscription = answer.get("result")
    if not isinstance(subscription, str):
        raise Unreachable("websocket endpoint: no subscription to new heads", reason=_REASON)
    return subscription


def _heads(socket: ClientConnection, subscription: str, stop: threading.Event, patience: float) -> Iterator[Block]:
    rhythm = Rhythm(patience)
    while not stop.is_set():
        try:
            message = _message(socket.recv(timeout=min(_LOOK_FOR_STOP_SECONDS, patience)))
        except TimeoutError:
            if rhythm.silent_for_too_long():
                raise Unreachable("websocket endpoint: no new head for too long", reason=_REASON) from None
            continue
        params = message.get("params")
        if not isinstance(params, dict) or params.get("subscription") != subscription:
            raise Nonsense("websocket endpoint: a message of another subscription", reason=_REASON)
        try:
            head = block_of(params.get("result"))
        except WrongShape as error:
            raise Nonsense(f"websocket endpoint: {error}", reason=_REASON) from error
        rhythm.beat()
        yield head


class Rhythm:
    """How often heads come, and so how long their absence is no reason to worry.

    Args:
        patience: seconds that are none in any case.
        monotonic: the time.
    """

    def __init__(self, patience: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._now = monotonic
        self._last = monotonic()
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._began = False

    def beat(self) -> None:
        """A head came."""
        now = self._now()
        if self._began:
            self._intervals.append(now - self._last)
        self._began = True
        self._last = now

    def silent_for_too_long(self) -> bool:
        """Whether none came for longer than patience, and than ten times what is usual."""
        usual = statistics.median(self._intervals) if self._intervals else 0.0
        return self._now() - self._last > max(self._patience, _INTERVALS * usual)


def _message(text: str | bytes) -> dict[str, Any]:
    try:
        message = from_json(text)  # not json.loads: it has no limit of its own for the depth
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise Nonsense("websocket endpoint: a message that is no JSON object", reason=_REASON)
    return message
