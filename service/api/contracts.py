"""Contracts as callers name them: chain and address, in a body or in a path."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, TypeAdapter, ValidationError

from service.api.fields import AppAddress
from service.api.problems import CHAIN_NOT_CONFIGURED, NOT_FOUND, InvalidPart, Problem, invalid
from service.api.workspace_bodies import ContractBody
from service.domain import chain_names
from service.domain.reasons import ADVICE, Reason
from service.wiring import ChainLinks

_ADDRESS: TypeAdapter[str] = TypeAdapter(AppAddress)


def unregistered() -> Problem:
    """404: not there, or another workspace's."""
    return Problem(NOT_FOUND, "The workspace of this API key has registered no such contract.")


def told(body: ContractBody, chains: Mapping[int, ChainLinks]) -> tuple[int, str]:
    """Chain id and checksummed address of a body.

    Raises:
        Problem: ``invalid_request`` or ``chain_not_configured``.
    """
    short_name, address = chain_names.split(body.address)
    chain_id = body.chain_id
    if short_name is not None:
        try:
            named = _chain_id(short_name, chains)
        except ValueError as error:
            raise invalid("#/address", str(error)) from None
        if chain_id not in (None, named):
            raise invalid("#/chain_id", f"{short_name!r} is chain {named}")
        chain_id = named
    if chain_id is None:
        raise invalid("#/chain_id", "is required, or the chain's short name in front of the address: base:0x...")
    if chain_id not in chains:
        part = InvalidPart(pointer="#/chain_id", detail=f"chain {chain_id} is not configured")
        advice = ADVICE[Reason.CHAIN_NOT_CONFIGURED]
        raise Problem(CHAIN_NOT_CONFIGURED, f"{part.pointer}: {part.detail}. {advice}", errors=[part])
    return chain_id, address


def named(contract: str, chains: Mapping[int, ChainLinks]) -> tuple[int, str]:
    """Chain id and checksummed address in a path, as ``8453:0x..`` or ``base:0x..``.

    Raises:
        Problem: ``not_found``.
    """
    short_name, address = chain_names.split(contract)
    try:
        return _chain_id(short_name or "", chains), address
    except ValueError:
        raise unregistered() from None


def _chain_id(name: str, chains: Mapping[int, ChainLinks]) -> int:
    return chain_names.chain_id_of(name, {chain.name: chain_id for chain_id, chain in chains.items()})


def _possible(contract: str) -> str:
    try:
        return _ADDRESS.validate_python(contract)
    except ValidationError:
        raise unregistered() from None


ContractId = Annotated[
    str, AfterValidator(_possible), Path(description="Chain and address: `8453:0x...` or `base:0x...`")
]
