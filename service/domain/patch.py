"""What a patch of a CVM does to its compose hash. Pure."""

from collections.abc import Mapping
from typing import Any, Final

HASH_MOVING: Final = frozenset(
    {
        "docker_compose_file",
        "pre_launch_script",
        "allowed_envs",
        "public_logs",
        "public_sysinfo",
        "public_tcbinfo",
    }
)
"""Members of Phala Cloud's ``PATCH /cvms/{id}`` that are part of the app-compose document."""


def moves_hash(patch: Mapping[str, Any]) -> bool:
    """Whether the patch touches the app-compose document, and so can need an on-chain approval.

    A member may still hold the value that runs already; only Phala Cloud knows that.
    """
    return not HASH_MOVING.isdisjoint(patch)
