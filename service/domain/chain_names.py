"""Short names of chains (EIP-3770) and their block explorers. Pure.

Source of the table: ``eth``, ``sep``, ``base``, ``basesep``, ``oeth``, ``arb1`` and ``gno`` of
https://github.com/ethereum-lists/chains, with the explorer that each entry names first. What is configured goes first.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class WellKnown(NamedTuple):
    """A chain that everybody calls the same."""

    short_name: str
    explorer_url: str


WELL_KNOWN: Final[Mapping[int, WellKnown]] = {
    1: WellKnown("eth", "https://etherscan.io"),
    10: WellKnown("oeth", "https://optimistic.etherscan.io"),
    100: WellKnown("gno", "https://gnosisscan.io"),
    8453: WellKnown("base", "https://basescan.org"),
    42161: WellKnown("arb1", "https://arbiscan.io"),
    84532: WellKnown("basesep", "https://sepolia.basescan.org"),
    11155111: WellKnown("sep", "https://sepolia.etherscan.io"),
}
_CHAIN_ID: Final = re.compile(r"[1-9][0-9]{0,17}")
_IDS: Final = {chain.short_name: chain_id for chain_id, chain in WELL_KNOWN.items()}


def split(address: str) -> tuple[str | None, str]:
    """``base:0x..`` as its short name and the rest; an address without a colon has none."""
    name, colon, rest = address.partition(":")
    return (name, rest) if colon else (None, address)


def chain_id_of(short_name: str, configured: Mapping[str, int]) -> int:
    """The chain with a short name, or whose id is in the place of one.

    Raises:
        ValueError: it is neither among ``configured`` nor well known.
    """
    chain_id = configured.get(short_name, _IDS.get(short_name))
    if chain_id is None and _CHAIN_ID.fullmatch(short_name):
        chain_id = int(short_name)
    if chain_id is None:
        raise ValueError(f"the chain {short_name!r} is neither configured nor well known")
    return chain_id


def explorer_of(chain_id: int) -> str | None:
    """Base URL of a well-known chain's block explorer."""
    known = WELL_KNOWN.get(chain_id)
    return None if known is None else known.explorer_url
