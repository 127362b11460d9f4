"""Which block of a chain counts as final. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_CONFIRMATIONS = re.compile(r"confirmations:([0-9]{1,6})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Confirmations:
    """The block that has ``blocks`` blocks on top of it is final; 0 means the head itself.

    Raises:
        ValueError: ``blocks`` is negative.
    """

    blocks: int

    def __post_init__(self) -> None:
        if self.blocks < 0:
            raise ValueError("confirmations cannot be negative")

    def __str__(self) -> str:
        return f"confirmations:{self.blocks}"


class FinalityTag(StrEnum):
    """The node's own notion of final, by block tag (execution-apis ``BlockTag``)."""

    SAFE = "safe"
    FINALIZED = "finalized"


Finality = Confirmations | FinalityTag
SAFE: Final = FinalityTag.SAFE
FINALIZED: Final = FinalityTag.FINALIZED


def parse_finality(text: str) -> Finality:
    """Read ``confirmations:<blocks>``, ``safe`` or ``finalized``; ``str()`` of the result gives the text back.

    Raises:
        ValueError: anything else.
    """
    match = _CONFIRMATIONS.match(text)
    if match is not None:
        return Confirmations(int(match.group(1)))
    try:
        return FinalityTag(text)
    except ValueError:
        raise ValueError("finality is confirmations:<blocks>, safe or finalized") from None
