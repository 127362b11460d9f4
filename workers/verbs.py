"""Which verb serves a row in which state. A verb is also the name of its queue."""

from enum import StrEnum

from service.domain.snapshots import ProposalState
from service.domain.states import SERVED_BY, State


class Verb(StrEnum):
    """What a worker does with a row."""

    PREPARE = "prepare"
    PROPOSE = "propose"
    AWAIT = "await"
    COMMIT = "commit"
    TRACK = "track"
    POST = "post"
    SIGNATURES = "signatures"
    WITHDRAW = "withdraw"
    TIDY = "tidy"
    OBSERVE = "observe"
    DELIVER = "deliver"
    SWEEP = "sweep"


REQUEST_VERBS: dict[State, Verb] = {state: Verb(verb) for state, verb in SERVED_BY.items()}

PROPOSAL_VERBS: dict[ProposalState, Verb] = {
    ProposalState.POSTING: Verb.POST,
    ProposalState.QUEUED: Verb.SIGNATURES,
    ProposalState.WITHDRAWING: Verb.WITHDRAW,
    ProposalState.APPROVED: Verb.TIDY,
}
