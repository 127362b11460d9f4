"""Shapes of the Safe Transaction Service's answers (v2 of its API), checked before anything in them counts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.adapters.http import one_line
from service.domain.hexes import address
from service.ports import QueuedTransaction

Hash = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{64}$", to_lower=True)]
Address = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]
Data = Annotated[str, StringConstraints(pattern=r"^0x([0-9a-fA-F]{2})*$", to_lower=True)]
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")]  # fits a bigint column
Row = TypeVar("Row", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Page(_Record, Generic[Row]):
    """One page of a list. ``next`` is a URL, only ever asked whether it is there."""

    next: str | None
    results: list[Row]


class DelegateRow(_Record):
    """A delegate, for one Safe or (``safe`` null) for all Safes of the delegator."""

    safe: Address | None
    delegate: Address
    delegator: Address
    expiry: Annotated[datetime | None, Field(alias="expiryDate", strict=False)] = None

    def holds(self, safe: str, delegate: str, now: datetime) -> bool:
        """Whether it makes ``delegate`` (checksummed) a delegate for ``safe`` (checksummed) now."""
        for_safe = self.safe is None or address(self.safe) == safe
        return for_safe and address(self.delegate) == delegate and (self.expiry is None or _aware(self.expiry) > now)


class _Confirmation(_Record):
    owner: Address
    signature: Data | None


class TransactionRow(_Record):
    """A multisig transaction."""

    safe: Address
    to: Address
    data: Data | None
    nonce: Digits
    safe_tx_hash: Annotated[Hash, Field(alias="safeTxHash")]
    is_executed: Annotated[bool, Field(alias="isExecuted")]
    is_successful: Annotated[bool | None, Field(alias="isSuccessful")]
    transaction_hash: Annotated[Hash | None, Field(alias="transactionHash")]
    confirmations: list[_Confirmation] | None

    def queued(self) -> QueuedTransaction:
        """The same in the port's terms."""
        return QueuedTransaction(
            safe_tx_hash=self.safe_tx_hash,
            nonce=int(self.nonce),
            to=address(self.to),
            data=self.data or "0x",
            is_executed=self.is_executed,
            is_successful=self.is_successful,
            transaction_hash=self.transaction_hash,
            confirmations=tuple((address(one.owner), one.signature or "0x") for one in self.confirmations or ()),
        )


def words_of(body: Any) -> str:  # noqa: ANN401 - unchecked JSON
    """What an error body says, on one line.

    The service answers ``{"detail": text}``, ``{"message": text, ..}``, ``{field: [text, ..], ..}`` or ``[text, ..]``.
    """
    if isinstance(body, Mapping):
        plain = body.get("detail") or body.get("message")
        if isinstance(plain, str):
            return one_line(plain)
        parts = [f"{'' if key == 'nonFieldErrors' else f'{key}: '}{words_of(value)}" for key, value in body.items()]
        return one_line("; ".join(parts))
    if isinstance(body, list):
        return one_line(" ".join(item for item in body if isinstance(item, str)))
    return one_line(body) if isinstance(body, str) else ""


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
