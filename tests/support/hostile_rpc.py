"""The chain adapter over RPC endpoints that answer whatever a test wants, without a network."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from service.adapters.chain import JsonRpcChain
from service.domain.finality import FINALIZED, Finality
from tests.support.hostile_http import Behaviour, Request, RpcSays, Say, rpc


@contextmanager
def chain_of(
    *behaviours: Callable[[Request], Behaviour],
    finality: Finality = FINALIZED,
    agreement: int = 1,
    calls: int = 4,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[JsonRpcChain]:
    """The adapter over one server per behaviour."""
    transport = _ByHost({f"rpc{index}.test": behave for index, behave in enumerate(behaviours)})
    chain = JsonRpcChain(
        31337,
        [f"http://{host}/key-s3cret" for host in transport.hosts],
        finality,
        agreement=agreement,
        calls=calls,
        transport=transport,
        monotonic=monotonic,
    )
    yield chain
    chain.close()


class _ByHost(httpx.BaseTransport):
    """Answers by host name, without a network."""

    def __init__(self, hosts: dict[str, Callable[[Request], Behaviour]]) -> None:
        self.hosts = hosts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        behaviour = self.hosts[request.url.host](Request(request.method, request.url.path, {}, request.read()))
        assert isinstance(behaviour, Say)
        return httpx.Response(behaviour.status, content=behaviour.body, headers=behaviour.headers)


def always(result: object) -> Callable[[Request], Behaviour]:
    return rpc(lambda _method, _params: result)


def says(code: int, message: str, data: object = None) -> Callable[[Request], Behaviour]:
    def answer(_method: str, _params: list[Any]) -> None:
        raise RpcSays(code, message, data)

    return rpc(answer)
