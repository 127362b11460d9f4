"""What a Safe did and what its owners approved, read from its contract.

Events and the mapping are those of the Safe contracts 1.3.0 to 1.5.0. ``ExecutionSuccess(bytes32,uint256)`` and
``ExecutionFailure(bytes32,uint256)`` have two encodings: up to 1.3.0 both members stand in the data, later the first
one is indexed.
"""

from collections.abc import Sequence
from typing import Final

from eth_utils.crypto import keccak

from service.adapters.chain_logs import in_pieces
from service.adapters.chain_shapes import WrongShape, log_records, returned
from service.adapters.jsonrpc import Call, RpcEndpoint, RpcFault
from service.domain.chain import Block, SafeExecution

_APPROVED_HASHES: Final = "0x" + keccak(text="approvedHashes(address,bytes32)")[:4].hex()
_SUCCESS: Final = {
    "0x" + keccak(text="ExecutionSuccess(bytes32,uint256)").hex(): True,
    "0x" + keccak(text="ExecutionFailure(bytes32,uint256)").hex(): False,
}
_TOPICS: Final = sorted(_SUCCESS)
_WORD: Final = 64  # hex digits of 32 bytes
_EVENT: Final = [_WORD, _WORD]  # a hash and a payment


def executions_of(endpoint: RpcEndpoint, safe: str, first: int, last: int) -> tuple[SafeExecution, ...]:
    """The executions of a Safe between two heights, both included, in the order of the chain.

    Raises:
        StateUnavailable: the endpoint does not know the blocks.
        Unreachable: it does not give even one block, or fails otherwise.
        Nonsense: logs that were not asked for.
    """
    found: list[SafeExecution] = []
    for piece in in_pieces(endpoint, first, last, {"address": safe, "topics": [_TOPICS]}):
        with endpoint.shapes():
            found += _executions(piece.logs, safe, piece.first, piece.last)
    return tuple(found)


def _executions(result: object, safe: str, first: int, last: int) -> list[SafeExecution]:
    found: dict[tuple[int, int], SafeExecution] = {}
    for log in log_records(result):
        number, topics = int(log["blockNumber"], 16), log["topics"]
        asked_for = first <= number <= last and log["address"] == safe.lower()
        if not asked_for or not topics or topics[0] not in _SUCCESS:
            raise WrongShape("logs that were not asked for")
        words = [topic[2:] for topic in topics[1:]] + _words(log["data"])
        if log.get("removed") or len(topics) > 2 or [len(word) for word in words] != _EVENT:  # noqa: PLR2004 - see above
            continue
        found[(number, int(log["logIndex"], 16))] = SafeExecution(
            safe_tx_hash="0x" + words[0],
            success=_SUCCESS[topics[0]],
            transaction_hash=log["transactionHash"],
            block=Block(number, log["blockHash"]),
        )
    return [found[key] for key in sorted(found)]


def _words(data: str) -> list[str]:
    digits = data[2:]
    return [digits[start : start + _WORD] for start in range(0, len(digits), _WORD)]


def approved_hash_reads(safe: str, safe_tx_hash: str, owners: Sequence[str]) -> list[Call]:
    """The calls that read ``approvedHashes`` for each owner."""
    return [
        Call("eth_call", [{"to": safe, "data": _APPROVED_HASHES + owner[2:].lower().zfill(_WORD) + safe_tx_hash[2:]}])
        for owner in owners
    ]


def approvers(endpoint: RpcEndpoint, owners: Sequence[str], answers: Sequence[bytes | RpcFault]) -> frozenset[str]:
    """The owners whose answer is not zero.

    Raises:
        Nonsense: an answer that is no number: there is no Safe, which was read at the same block.
    """
    approved = set()
    for owner, answer in zip(owners, answers, strict=True):
        values = None if isinstance(answer, RpcFault) else returned(["uint256"], answer)
        if values is None:
            raise endpoint.nonsense("an approved hash that is no number")
        if values[0]:
            approved.add(owner)
    return frozenset(approved)
