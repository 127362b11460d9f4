"""Head and final block of a chain, in one HTTP request on most ticks."""

from service.adapters.chain_shapes import block_of
from service.adapters.jsonrpc import Call, Result, RpcEndpoint, RpcFault
from service.domain.chain import Block, ChainView
from service.domain.errors import Unreachable
from service.domain.finality import Confirmations, Finality
from service.domain.reasons import Reason


class Heads:
    """Reads blocks; remembers the last view to guess which block becomes final next.

    Usable from several threads: a guess that another thread made stale costs one more request, nothing else.
    """

    def __init__(self, finality: Finality) -> None:
        self._finality = finality
        self._seen: ChainView | None = None
        self._stride = 1

    def view(self, endpoint: RpcEndpoint) -> ChainView:
        """Head and final block as one endpoint has them."""
        seen = self._seen
        if isinstance(self._finality, Confirmations):
            view = self._view_by_depth(endpoint, self._finality.blocks, seen)
        else:
            head, final = endpoint.batch(_by("latest"), _by(str(self._finality)))
            view = ChainView(_some_block(endpoint, head), _some_block(endpoint, final))
        if view.final.number > view.head.number:
            raise endpoint.nonsense("a final block above its head")
        if seen is not None and view.head.number > seen.head.number:
            self._stride = view.head.number - seen.head.number
        self._seen = view
        return view

    def block(self, endpoint: RpcEndpoint, number: int) -> Block | None:
        """The canonical block at a height, ``None`` above the head."""
        (result,) = endpoint.batch(_by(hex(number)))
        return _block_at(endpoint, result, number)

    def _view_by_depth(self, endpoint: RpcEndpoint, depth: int, seen: ChainView | None) -> ChainView:
        """Ask for the head together with the block that is final if the head moved as far as the last time."""
        guess: int | None = None
        guessed: Result = None
        if seen is None:
            (result,) = endpoint.batch(_by("latest"))
        else:
            guess = max(0, seen.head.number + self._stride - depth)
            result, guessed = endpoint.batch(_by("latest"), _by(hex(guess)))
        head = _some_block(endpoint, result)
        number = max(0, head.number - depth)
        if number == head.number:
            return ChainView(head, head)
        if seen is not None and head == seen.head:
            return seen  # a block's hash fixes every block below it
        final = _block_at(endpoint, guessed, number) if number == guess else self.block(endpoint, number)
        if final is None:
            raise endpoint.nonsense("no block below its head")
        return ChainView(head, final)


def _by(which: str) -> Call:
    return Call("eth_getBlockByNumber", [which, False])


def _block_at(endpoint: RpcEndpoint, result: Result, number: int) -> Block | None:
    if result is None:
        return None
    block = _some_block(endpoint, result)
    if block.number != number:
        raise endpoint.nonsense("another block than the one asked for")
    return block


def _some_block(endpoint: RpcEndpoint, result: Result) -> Block:
    if isinstance(result, RpcFault):
        raise endpoint.unreachable(result)
    if result is None:
        raise Unreachable(f"{endpoint.name} knows no such block yet", reason=Reason.RPC_UNREACHABLE)
    with endpoint.shapes():
        return block_of(result)
