"""Shapes of RPC answers, checked before anything in them counts.

What the node writes (numbers, hashes, addresses) must have its shape, else the answer is nonsense. What a contract
wrote (topics, data, return values) may be anything: anybody can deploy a contract that emits our topics, and must not
be able to stop the scan by it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, NotRequired

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from service.domain.chain import TOPICS, Block, ChainFact
from service.domain.hexes import address as checksummed

_BYTES_32 = 32
_SEEN_ADDRESSES = 4096
_SEEN_LOGS = 4096

Quantity = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{1,15}$")]  # fits a bigint column
Hash = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{64}$", to_lower=True)]
Address = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$", to_lower=True)]
Data = Annotated[str, StringConstraints(pattern=r"^0x([0-9a-fA-F]{2})*$", to_lower=True)]


_STRICT = ConfigDict(strict=True, extra="ignore")


@with_config(_STRICT)
class _BlockRecord(TypedDict):
    number: Quantity
    hash: Hash


@with_config(_STRICT)
class LogRecord(TypedDict):
    """A log as a node writes it, lower-case hex."""

    address: Address
    topics: list[Hash]
    data: Data
    blockNumber: Quantity
    blockHash: Hash
    transactionHash: Hash
    logIndex: Quantity
    removed: NotRequired[bool | None]


_BLOCK = TypeAdapter(_BlockRecord)
_LOGS = TypeAdapter(list[LogRecord])
_DATA: TypeAdapter[str] = TypeAdapter(Data, config=ConfigDict(strict=True))
_address_of = lru_cache(maxsize=_SEEN_ADDRESSES)(checksummed)  # keccak costs 20 us, and few contracts log much


class WrongShape(ValueError):
    """An answer that cannot be what was asked for; the text says what, without quoting it."""


def block_of(result: Any) -> Block:  # noqa: ANN401 - unchecked JSON
    """A block header or whole block.

    Raises:
        WrongShape: something else.
    """
    try:
        record = _BLOCK.validate_python(result)
    except ValidationError:
        raise WrongShape("a block without number and hash") from None
    return Block(int(record["number"], 16), record["hash"])


def call_data(result: Any) -> bytes:  # noqa: ANN401 - unchecked JSON
    """What a contract returned, or its code.

    Raises:
        WrongShape: no ``0x`` hex.
    """
    try:
        return bytes.fromhex(_DATA.validate_python(result)[2:])
    except ValidationError:
        raise WrongShape("a call result that is no hex") from None


def log_records(result: Any) -> list[LogRecord]:  # noqa: ANN401 - unchecked JSON
    """The answer to ``eth_getLogs``.

    Raises:
        WrongShape: something else.
    """
    try:
        return _LOGS.validate_python(result)
    except ValidationError:
        raise WrongShape("logs of the wrong shape") from None


def facts_of(result: Any, first: int, last: int) -> tuple[ChainFact, ...]:  # noqa: ANN401 - unchecked JSON
    """Allowlist facts out of the answer to ``eth_getLogs``, in the order of the chain.

    Logs that carry one of our topics but not the form of a DstackApp event (one topic, 32 bytes of data) are of other
    contracts and left out, like those marked ``removed``.

    Raises:
        WrongShape: the answer holds something that was not asked for, or a log twice.
    """
    facts: dict[tuple[int, int, str], ChainFact] = {}
    for log in log_records(result):
        topics = log["topics"]
        number = int(log["blockNumber"], 16)
        if not first <= number <= last or not topics or topics[0] not in TOPICS:
            raise WrongShape("logs that were not asked for")
        if log.get("removed") or len(topics) != 1 or len(log["data"]) != 2 + 2 * _BYTES_32:
            continue
        key = (number, int(log["logIndex"], 16), log["blockHash"])
        if key in facts:
            raise WrongShape("the same log twice")
        facts[key] = _fact(topics[0], log["address"], log["data"], log["transactionHash"], *key)
    return tuple(facts[key] for key in sorted(facts))


@lru_cache(maxsize=_SEEN_LOGS)  # each look reads the newest blocks again
def _fact(
    topic: str, address: str, data: str, transaction_hash: str, number: int, index: int, block_hash: str
) -> ChainFact:
    return ChainFact(TOPICS[topic], _address_of(address), data, transaction_hash, Block(number, block_hash), index)


def returned(types: Sequence[str], raw: bytes) -> tuple[Any, ...] | None:
    """The ABI values a contract returned, ``None`` when it returned something else."""
    try:
        return tuple(decode(types, raw))
    except (DecodingError, ValueError, OverflowError):
        return None


def returned_address(raw: bytes) -> str | None:
    """The checksummed address a contract returned, ``None`` when it returned something else."""
    values = returned(["address"], raw)
    return None if values is None else checksummed(values[0])
