"""A complete Phala Cloud client, usable on its own: ``from service.phala import PhalaCloud``."""

from typing import TYPE_CHECKING, Any

from service.phala.compose_hash import canonical_app_compose, compose_hash

if TYPE_CHECKING:
    from service.phala.client import PhalaCloud

__all__ = ["PhalaCloud", "canonical_app_compose", "compose_hash"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the language's signature
    """Load the client when it is first asked for: who only hashes or checks webhooks needs no HTTP library."""
    if name == "PhalaCloud":
        from service.phala.client import PhalaCloud  # noqa: PLC0415 - see above

        return PhalaCloud
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
