"""What a workspace may be set to, and what can block it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.domain.api_keys import Scope

DAY: Final = 86_400
SHORTEST_DEADLINE: Final = 60
LONGEST_DEADLINE: Final = 90 * DAY
"""Seconds that a request may be given up to its commit."""
SHORTEST_RUN_DEADLINE: Final = 60
LONGEST_RUN_DEADLINE: Final = DAY
"""Seconds that a committed update may be given to run."""
DEADLINE: Final = 30 * DAY
RUN_DEADLINE: Final = 3600
SHORTEST_RETENTION: Final = 7
LONGEST_RETENTION: Final = 3650
"""Days that events and deliveries may be kept, other than for good; the least is longer than a delivery is tried."""
EVENT_RETENTION: Final = 365
DELIVERY_RETENTION: Final = 90
"""Days that they are kept unless the workspace says otherwise."""
LONGEST_NAME: Final = 200
MOST_WEBHOOK_SECRETS: Final = 10
"""Secrets of Phala Cloud's webhooks that count at once."""
SHORTEST_PHALA_KEY: Final = 8
LONGEST_SECRET: Final = 500
"""Characters of a Phala API key, or of a secret of Phala Cloud's webhooks."""
MOST_REGISTERED: Final = 100
"""Safes of a workspace, and likewise external apps."""

PHALA: Final = "phala:"
PHALA_KEY_ITSELF: Final = f"{PHALA}key"
"""Subject of a Phala API key that is refused whatever it asks."""


def right_subject(right: str, cvm: str) -> str:
    """The name of a right that a Phala API key lacks for one CVM."""
    return f"{PHALA}{right}:{cvm}"


def safe_subject(chain_id: int, safe: str) -> str:
    """The name of a Safe as something that can block a workspace."""
    return f"safe:{chain_id}:{safe}"


class PolicyAct(StrEnum):
    """What the policy of a workspace says the least scope for."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may do what.

    Attributes:
        least: scope that each act needs at least; never less than ``submit``.
        cancel_own_only: a key below ``manage`` cancels only what it submitted, or a key that it replaces.
    """

    least: Mapping[PolicyAct, Scope]
    cancel_own_only: bool = False

    def may_cancel_others(self, scope: Scope) -> bool:
        """Whether a key of a scope may cancel what other keys submitted."""
        return not self.cancel_own_only or scope.includes(Scope.MANAGE)


POLICY_SCOPES: Final = frozenset(Scope) - {Scope.READ}
"""What the least scope of an act may be."""
