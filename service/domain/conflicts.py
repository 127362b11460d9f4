"""What a change request does about another live one of its CVM. Pure."""

from enum import StrEnum


class OnConflict(StrEnum):
    """What is asked for when another live change request holds the CVM."""

    REFUSE = "refuse"
    """The newer one is refused, or ends as ``failed`` with ``cvm_busy``."""
    SUPERSEDE = "supersede"
    """The older one ends as ``superseded``, unless its commit has started."""
