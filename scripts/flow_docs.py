"""What the domain's tables say about the flow, as Markdown: diagram, states, edges, reasons, events, retries."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from scripts.markdown import code, fenced, table
from service.domain.actors import ACTOR_MEANINGS
from service.domain.acts import ACT_MEANINGS
from service.domain.alerts import ALERT_ADVICE, AlertCode
from service.domain.outcomes import Notice
from service.domain.reasons import ADVICE, Reason
from service.domain.schedules import WEBHOOK_RETRY_SECONDS
from service.domain.snapshots import LIVE_PROPOSAL, ProposalState
from service.domain.states import EDGES, HOLDS_CVM, MEANINGS, TERMINAL, State
from workers.verbs import PROPOSAL_VERBS, REQUEST_VERBS

NOTICES: Final[dict[Notice, tuple[str, tuple[str, ...]]]] = {
    Notice.CANCEL_REQUESTED: ("somebody asked to cancel; `cancelled` follows, unless it ends otherwise first", ()),
    Notice.REFRESH_REQUESTED: ("somebody asked for a fresh commit token", ()),
    Notice.APPROVAL_ADDED: (
        "a current owner's signature was seen, in the queue or on chain",
        ("approvals", "threshold", "owners", "missing"),
    ),
    Notice.THRESHOLD_REACHED: (
        "enough owners signed; one of them can execute it",
        ("approvals", "threshold", "owners", "missing"),
    ),
    Notice.EXPIRING: (
        "3 days, 1 day or 6 hours are left of the commit token or until the deadline (`what`); each is told once",
        ("what", "ends_at", "advice"),
    ),
    Notice.TOKEN_REFRESHED: ("a fresh commit token with the same hash took the old one's place", ("token_expires_at",)),
    Notice.REORGED: (
        "the block that held the approval vanished; the approval is looked for again",
        ("block_number", "block_hash", "transaction_hash"),
    ),
    Notice.ALERT: ("something needs a person's eyes, see below", ("message", "code", "advice", "correlation_id")),
}

PROPOSAL_MEANINGS: Final[dict[ProposalState, str]] = {
    ProposalState.POSTING: "a nonce is claimed and the transaction put into the Safe's queue",
    ProposalState.QUEUED: "in the Safe's queue; signatures are counted, the nonce is watched",
    ProposalState.EXTERNAL: "the owner of the app contract is no Safe: the approval happens elsewhere",
    ProposalState.WITHDRAWING: "its last change request left: taken out of the queue, or its rejection proposed",
    ProposalState.APPROVED: (
        "what it asked for is allowed at a final block; served until none of its transactions is left in the queue"
    ),
    ProposalState.REJECTED: "the owners executed a rejection at its nonce",
    ProposalState.WITHDRAWN: "taken back",
    ProposalState.FAILED: "cannot be carried on, `detail` says why",
}

REASON_GROUPS: Final[tuple[tuple[str, Reason], ...]] = (
    ("Before and during the prepare", Reason.CVM_NOT_FOUND),
    ("The app contract and its Safe", Reason.APP_CONTRACT_MISSING),
    ("The approval", Reason.REJECTED_BY_OWNERS),
    ("The commit and after", Reason.TOKEN_REFUSED),
    ("Waiting and trying again", Reason.PHALA_UNREACHABLE),
)
"""Headings of ``docs/reasons.md``, each with the first code under it in the order of the enum."""

_GROUP: Final = "before_commit"


def state_diagram() -> str:
    """Mermaid diagram of every edge; edges that all states before the commit share are drawn once, from their frame."""
    inside = [edge for edge in EDGES if {edge.source, edge.target} <= HOLDS_CVM]
    shared = _shared_edges()
    outside = [edge for edge in EDGES if edge not in inside and (edge.target, edge.when) not in shared]
    lines = [
        "stateDiagram-v2",
        f"    {_GROUP} : before the commit",
        f"    [*] --> {_GROUP}",
        f"    state {_GROUP} {{",
        f"        [*] --> {State.RECEIVED}",
        *(f"        {_arrow(edge.source, edge.target, edge.when)}" for edge in inside),
        "    }",
        *(f"    {_arrow(edge.source, edge.target, edge.when)}" for edge in outside),
        *(f"    {_arrow(_GROUP, target, when)}" for target, when in shared),
        *(f"    {state} --> [*]" for state in State if state in TERMINAL),
    ]
    return fenced("mermaid", "\n".join(lines))


def _shared_edges() -> list[tuple[State, str]]:
    labels = dict.fromkeys((edge.target, edge.when) for edge in EDGES)
    return [label for label in labels if {e.source for e in EDGES if (e.target, e.when) == label} >= HOLDS_CVM]


def _arrow(source: str, target: str, when: str) -> str:
    # In a label of a state diagram Mermaid takes neither colons nor semicolons.
    label = when.replace(": ", " - ").replace(":", " ").replace(";", ",")
    return f"{source} --> {target} : {label}"


def state_table() -> str:
    """Every state, its meaning and the verb that serves it."""
    rows = [
        (code(state), MEANINGS[state], code(REQUEST_VERBS[state]) if state in REQUEST_VERBS else "ended")
        for state in State
    ]
    return table(("State", "Meaning", "Served by"), rows)


def edge_table() -> str:
    """Every edge and when it is taken."""
    return table(("From", "To", "When"), [(code(e.source), code(e.target), e.when) for e in EDGES])


def proposal_table() -> str:
    """Every state of a proposal, its meaning and the verb that serves it."""
    rows = [(code(state), PROPOSAL_MEANINGS[state], _proposal_verb(state)) for state in ProposalState]
    return table(("State", "Meaning", "Served by"), rows)


def _proposal_verb(state: ProposalState) -> str:
    if state in PROPOSAL_VERBS:
        return code(PROPOSAL_VERBS[state])
    return "nobody, its requests watch the chain" if state in LIVE_PROPOSAL else "ended"


def reasons_page() -> str:
    """The text of ``docs/reasons.md``."""
    order = list(Reason)
    starts = [order.index(first) for _, first in REASON_GROUPS] + [len(order)]
    if starts[0] != 0 or starts != sorted(starts):
        raise ValueError("the groups of reasons are not in the order of the enum")
    intro = (
        "A change request that has ended or waits says why in `reason`: a stable `code`, the `advice` below, and a "
        "`detail` that is different each time. On a request that is still under way a code says what it waits for or "
        "what the last try ran into; on one that has ended it says why. [operations.md](operations.md) tells the "
        "operator what to look at."
    )
    parts = ["# Reason codes", intro]
    for (heading, _), start, end in zip(REASON_GROUPS, starts[:-1], starts[1:], strict=True):
        rows = [(code(reason), ADVICE[reason]) for reason in order[start:end]]
        parts += [f"## {heading}", table(("Code", "Advice"), rows)]
    return "\n\n".join(parts) + "\n"


def alert_table() -> str:
    """Every code of an alert about an approval, with its advice."""
    return table(("Code", "Advice"), [(code(alert), ALERT_ADVICE[alert]) for alert in AlertCode])


def event_table() -> str:
    """Every event that webhooks carry."""
    states = [
        (_event(state), f"the state became `{state}`: {MEANINGS[state]}", _data(_added(state))) for state in State
    ]
    notices = [(_event(notice), NOTICES[notice][0], _data(NOTICES[notice][1])) for notice in Notice]
    return table(("Event", "When", "More in `data`"), states + notices)


def actor_table() -> str:
    """Every kind of actor, and what its id and name are."""
    rows = [(code(kind), who, its_id, name) for kind, (who, its_id, name) in ACTOR_MEANINGS.items()]
    return table(("Kind", "Who", "`id`", "`name`"), rows)


def act_table() -> str:
    """Every act on a workspace."""
    rows = [(code(act), what, _data(members)) for act, (what, members) in ACT_MEANINGS.items()]
    return table(("Event", "When", "`data`"), rows)


def _event(name: str) -> str:
    return code(f"change_request.{name}")


def _added(state: State) -> Sequence[str]:
    return ("previous_state",) if any(edge.target is state for edge in EDGES) else ()


def _data(members: Iterable[str]) -> str:
    return ", ".join(map(code, members))


def retry_table() -> str:
    """The schedule of webhook deliveries."""
    waits = (0, *WEBHOOK_RETRY_SECONDS)
    rows = [
        (str(number), _duration(wait) if wait else "at once", _duration(total) if total else "0")
        for number, (wait, total) in enumerate(zip(waits, accumulate(waits), strict=True), start=1)
    ]
    return table(("Attempt", "Wait before it", "Since the event"), rows)


def _duration(seconds: int) -> str:
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts)
