"""What must hold after every transition, in SQL; and what must hold of the ledgers of the outside world."""

from typing import Final

from sqlalchemy import select, text

from service.domain.reasons import Reason
from service.domain.snapshots import JOINABLE_PROPOSAL, LIVE_PROPOSAL, LIVE_SAFE_TRANSACTION
from service.domain.states import EDGES, LIVE, TERMINAL, State
from service.store import audit
from service.store.audit_rows import link_of
from service.store.columns import one_of
from service.store.database import Prepared
from service.store.tables import Event
from tests.support.model.outside import TOKEN_PREFIX, Accepted
from tests.support.model.world import World

_EDGES: Final = ", ".join(f"('{edge.source.value}', '{edge.target.value}')" for edge in EDGES)

MAY_FAIL_WITH: Final = frozenset(
    {
        Reason.CVM_BUSY,
        Reason.APPROVAL_WITHDRAWN,
        Reason.TOKEN_REFUSED,
        Reason.COMPOSE_DRIFT,
        Reason.COMMIT_REFUSED,
        Reason.OPERATION_FAILED,
        Reason.OTHER_HASH_RUNNING,
        Reason.NOT_RUNNING_IN_TIME,
        Reason.PREPARED_MISMATCH,
        Reason.PROPOSAL_REFUSED,
    }
)
"""Ends that something in the model can be the cause of; any other would be a defect."""

_STATE_EVENTS: Final = """
    SELECT change_request_id, seq, state, lag(state) OVER per AS previous, max(seq) OVER whole = seq AS newest,
           count(*) OVER whole AS states
    FROM events WHERE type = 'change_request.' || state
    WINDOW per AS (PARTITION BY change_request_id ORDER BY seq), whole AS (PARTITION BY change_request_id)
"""

VIOLATIONS: Final = Prepared(
    f"""
WITH state_events AS ({_STATE_EVENTS}), numbers AS (
    SELECT change_request_id, count(*) AS events, max(seq) AS last FROM events GROUP BY change_request_id
)
SELECT 'waits without a reason', id FROM change_requests
 WHERE {one_of("state", LIVE)} AND due_at > clock_timestamp() + interval '900 milliseconds' AND reason IS NULL
UNION ALL
SELECT 'failed for no cause', id || ' ' || reason || ' ' || coalesce(detail, '') FROM change_requests
 WHERE state = 'failed' AND NOT ({one_of("reason", MAY_FAIL_WITH)})
UNION ALL
SELECT 'a defect was met', id || ' ' || coalesce(detail, '') FROM change_requests
 WHERE 'internal_error' IN (reason, refresh_reason)
UNION ALL
SELECT 'a defect was met', id || ' ' || coalesce(detail, '') FROM proposals WHERE fault = 'internal_error'
UNION ALL
SELECT 'two live requests of a CVM', min(id) FROM change_requests
 WHERE {one_of("state", LIVE - {State.COMMITTED})} AND vm_uuid IS NOT NULL
 GROUP BY workspace_id, vm_uuid HAVING count(*) > 1
UNION ALL
SELECT 'two live proposals of an identity', min(id) FROM proposals WHERE {one_of("state", LIVE_PROPOSAL)}
 GROUP BY workspace_id, chain_id, app_contract, compose_hash, devices HAVING count(*) > 1
UNION ALL
SELECT 'two live approvals at a nonce', min(id) FROM safe_transactions
 WHERE kind = 'approval' AND {one_of("state", LIVE_SAFE_TRANSACTION)}
 GROUP BY chain_id, safe, nonce HAVING count(*) > 1
UNION ALL
SELECT 'a proposal that nobody waits for', p.id FROM proposals p WHERE {one_of("p.state", JOINABLE_PROPOSAL)}
 AND NOT EXISTS (SELECT FROM change_requests r WHERE r.proposal_id = p.id
                 AND r.state IN ('prepared', 'proposed', 'executed'))
UNION ALL
SELECT 'a gap in the events', r.id FROM change_requests r LEFT JOIN numbers n ON n.change_request_id = r.id
 WHERE (n.events, n.last) IS DISTINCT FROM (r.last_event_seq::bigint, r.last_event_seq)
UNION ALL
SELECT 'a chain with another end', r.id FROM change_requests r
 LEFT JOIN events e ON e.change_request_id = r.id AND e.seq = r.last_event_seq
 WHERE (e.hash, r.last_chained_seq) IS DISTINCT FROM (r.last_event_hash, r.last_event_seq)
UNION ALL
SELECT 'a state without its event', r.id FROM change_requests r
 LEFT JOIN state_events s ON s.change_request_id = r.id AND s.newest
 WHERE (s.state, s.states) IS DISTINCT FROM (r.state, r.version + 1::bigint)
UNION ALL
SELECT 'an edge that is not in the table', change_request_id || ' ' || previous || ' ' || state FROM state_events
 WHERE previous IS NOT NULL AND (previous, state) NOT IN ({_EDGES})
UNION ALL
SELECT 'an event without its delivery', e.id FROM events e
 WHERE e.change_request_id IS NOT NULL
   AND (SELECT count(*) FROM webhook_deliveries d WHERE d.event_id = e.id) <> 1
UNION ALL
SELECT 'a token that is told', id FROM events WHERE strpos(body, '{TOKEN_PREFIX}') > 0
UNION ALL
SELECT 'a token that is told', id FROM change_requests
 WHERE strpos(concat(detail, refresh_detail, title, warnings::text), '{TOKEN_PREFIX}') > 0
UNION ALL
SELECT 'a token that is kept', id FROM change_requests
 WHERE {one_of("state", TERMINAL | {State.COMMITTED})} AND commit_token_sealed IS NOT NULL
UNION ALL
SELECT 'posted before it was stored', posted FROM unnest(%(posts)s::text[]) posted
 WHERE NOT EXISTS (SELECT FROM safe_transactions t WHERE t.safe_tx_hash = posted)
UNION ALL
SELECT 'two commits were accepted', t.change_request_id FROM commit_tokens t
 WHERE t.fingerprint = ANY(%(commits)s) GROUP BY t.change_request_id HAVING count(*) > 1
UNION ALL
SELECT 'committed with a token that nobody held', encode(used, 'hex') FROM unnest(%(commits)s::bytea[]) used
 WHERE NOT EXISTS (SELECT FROM commit_tokens t WHERE t.fingerprint = used)
UNION ALL
SELECT 'a commit began that was held', id FROM change_requests
 WHERE commit_attempted_at IS NOT NULL AND commit_policy = 'hold' AND released_at IS NULL
UNION ALL
SELECT 'a commit began before its time', id FROM change_requests WHERE commit_attempted_at < not_before
UNION ALL
SELECT 'a commit began beside a freeze', r.id FROM change_requests r JOIN workspaces w ON w.id = r.workspace_id
 WHERE w.commits_frozen_at IS NOT NULL AND r.commit_attempted_at IS NOT NULL AND r.id <> ALL(%(begun)s::text[])
UNION ALL
SELECT 'a token that is not known', r.id FROM change_requests r WHERE r.commit_token_fingerprint IS NOT NULL
 AND NOT EXISTS (SELECT FROM commit_tokens t WHERE t.fingerprint = r.commit_token_fingerprint)
""",  # noqa: S608 - our own names
    {},
)

_NEWEST: Final = Prepared("SELECT max(position) FROM events", {})
_HOLDERS = text("SELECT fingerprint, change_request_id FROM commit_tokens")
_ROWS = text("SELECT id, state, reason, vm_uuid, correlation_id FROM change_requests")


def check(world: World) -> None:
    """Nothing in the database is what must never be, and what the outside accepted from us, it knows, once."""
    commits = [one for cvm in world.cvms for one in cvm.accepted if one.by_service]
    spent = [world.database.sealer.fingerprint(one.token) for one in commits]
    found = world.database.execute(VIOLATIONS, {"posts": world.queue.posts, "commits": spent, "begun": world.begun})
    assert not found, found
    assert all(one.approved for one in commits), "committed without a final approval"
    _follow_chains(world)


def _follow_chains(world: World) -> None:
    """Each new event has the hash that it must have behind the one before it; the old ones no program can change."""
    ((newest,),) = world.database.execute(_NEWEST, {})
    if newest == world.followed:
        return
    new = select(Event).where(Event.position > world.followed).order_by(Event.position)
    with world.database.reads() as session:
        for event in session.scalars(new):
            name, broken = world.chains.follow(link_of(event, event.seq or 0))
            assert broken is None, f"{name}: {broken}"
            world.followed = event.position


def _accepted_by_request(world: World) -> dict[str, list[Accepted]]:
    """Accepted commits, of whomever, by the change request that held their token."""
    commits = [one for cvm in world.cvms for one in cvm.accepted]
    if not commits:
        return {}
    with world.database.reads() as session:
        holders = {bytes(row[0]): row[1] for row in session.execute(_HOLDERS)}
    found: dict[str, list[Accepted]] = {}
    for one in commits:
        holder = holders.get(world.database.sealer.fingerprint(one.token))
        if holder is not None:
            found.setdefault(holder, []).append(one)
    return found


def check_ends(world: World) -> None:
    """Everything has ended, each as what happened to it demands, and everybody was told."""
    with world.database.reads() as session:
        ends = {row.id: row for row in session.execute(_ROWS)}
    accepted = _accepted_by_request(world)
    for request_id, row in ends.items():
        state = State(row.state)
        assert state in TERMINAL, f"{request_id} is still {state}: {row.reason}"
        ours = [one for one in accepted.get(request_id, []) if one.by_service]
        if ours:
            assert state in (State.COMPLETED, State.FAILED) or row.reason == Reason.DEADLINE_PASSED, (
                f"an accepted commit of {request_id} was lost: {state} {row.reason}"
            )
            again = {one for cvm in world.cvms if cvm.info.vm_uuid == row.vm_uuid for one in cvm.applied_again}
            assert row.correlation_id not in again, f"{request_id} was applied a second time"
            assert request_id not in world.cancelled, "committed though its cancel was accepted"
    with world.database.reads() as session:
        events = set(session.scalars(text("SELECT event_id FROM webhook_deliveries WHERE state <> 'failed'")))
    assert events <= set(world.receiver.received), "an event never arrived"
    chains = [found for found in audit.check(world.database, audit.Wanted()) if isinstance(found, audit.Checked)]
    assert len(chains) == len(ends) + 1, "one for each change request, one for the workspace"
    broken = [found for found in chains if found.broken]
    assert not broken, broken
