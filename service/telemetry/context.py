"""The ids of what a thread works for. Log lines, spans and calls upstream carry them without being handed them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

_NOTHING: Final[Mapping[str, str | int]] = MappingProxyType({})
_IDS: Final[ContextVar[Mapping[str, str | int]]] = ContextVar("ids", default=_NOTHING)


def ids() -> Mapping[str, str | int]:
    """What is worked for: ``request_id``, ``change_request_id``, ``workspace_id``, ``proposal_id``, ``chain_id``..."""
    return _IDS.get()


@contextmanager
def working_for(**named: str | int | None) -> Iterator[None]:
    """Add ids while the block runs; those that are ``None`` are left out."""
    token = _IDS.set({**_IDS.get(), **{name: value for name, value in named.items() if value is not None}})
    try:
        yield
    finally:
        _IDS.reset(token)
