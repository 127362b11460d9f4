"""What must hold whatever died: by SQL, in any deployment's database. Each answers its violations in words.

``AT_REST`` are those that hold once nothing is due any more, ``ALWAYS`` hold at every moment.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg

from service.domain.audit import GENESIS, Broken, Chain, Entry, Link, link
from service.domain.snapshots import LIVE_PROPOSAL, LIVE_SAFE_TRANSACTION
from service.domain.states import HOLDS_CVM, LIVE, TERMINAL, State, may_follow

Connection = psycopg.Connection[tuple[Any, ...]]
Invariant = Callable[[Connection], list[str]]

STALLED_SECONDS: Final = 90
"""A row that is due for so long and served by nobody is found to be stalled."""


def _values(members: frozenset[Any]) -> list[str]:
    return sorted(member.value for member in members)


def _rows(connection: Connection, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
    return connection.execute(query, values).fetchall()  # type: ignore[call-overload]  # texts of this module


def requests_ended_or_have_timer_and_reason(connection: Connection) -> list[str]:
    """Every live request has a time at which it is served next, and says why it waits until then."""
    query = """
        SELECT id, state, due_at, reason FROM change_requests WHERE state = ANY(%s) AND (due_at IS NULL
           OR (due_at > now() + interval '1 s' AND reason IS NULL AND lease_until IS NULL)
           OR (due_at < now() - make_interval(secs => %s) AND (lease_until IS NULL OR lease_until < now())))
    """
    rows = _rows(connection, query, _values(LIVE), STALLED_SECONDS)
    return [f"{id_} is {state}, due {due}, reason {reason}" for id_, state, due, reason in rows]


def one_live_proposal_per_identity(connection: Connection) -> list[str]:
    """At most one live proposal for each workspace, chain, app contract, hash and set of devices."""
    query = """
        SELECT app_contract, compose_hash, count(*) FROM proposals WHERE state = ANY(%s)
         GROUP BY workspace_id, chain_id, app_contract, compose_hash, devices HAVING count(*) > 1
    """
    return [
        f"{n} live proposals of {hash_} at {app}" for app, hash_, n in _rows(connection, query, _values(LIVE_PROPOSAL))
    ]


def one_live_approval_per_nonce(connection: Connection) -> list[str]:
    """At most one live approval of ours for each nonce of a Safe, and for each proposal."""
    query = """
        SELECT 'nonce ' || nonce || ' of ' || safe, count(*) FROM safe_transactions
         WHERE kind = 'approval' AND state = ANY(%s) GROUP BY chain_id, safe, nonce HAVING count(*) > 1
        UNION ALL
        SELECT proposal_id, count(*) FROM safe_transactions
         WHERE kind = 'approval' AND state = ANY(%s) GROUP BY proposal_id HAVING count(*) > 1
    """
    live = _values(LIVE_SAFE_TRANSACTION)
    return [f"{n} live approvals for {what}" for what, n in _rows(connection, query, live, live)]


def event_sequences_have_no_gap(connection: Connection) -> list[str]:
    """The events of a request are numbered 1, 2, 3, up to what the request says was the last."""
    query = """
        SELECT r.id, r.last_event_seq, count(e.seq), max(e.seq) FROM change_requests r
          LEFT JOIN events e ON e.change_request_id = r.id GROUP BY r.id, r.last_event_seq
        HAVING count(e.seq) <> r.last_event_seq OR coalesce(max(e.seq), 0) <> r.last_event_seq
            OR coalesce(min(e.seq), 1) <> 1 OR r.last_event_seq = 0
    """
    return [f"{id_}: {n} events up to {top}, last {last}" for id_, last, n, top in _rows(connection, query)]


def no_state_without_its_event(connection: Connection) -> list[str]:
    """The states that the events tell are a way through the transition table, from the beginning to where it stands."""
    query = """
        SELECT r.id, r.state, array_agg(e.state ORDER BY e.seq) FILTER (WHERE e.type = 'change_request.' || e.state)
          FROM change_requests r LEFT JOIN events e ON e.change_request_id = r.id GROUP BY r.id, r.state
    """
    found = []
    for id_, state, told in _rows(connection, query):
        way = [State(one) for one in told or ()]
        edges = itertools.pairwise(way)
        if not way or way[0] is not State.RECEIVED or way[-1] != state or not all(may_follow(*edge) for edge in edges):
            found.append(f"{id_} is {state}, its events tell {' '.join(way) or 'nothing'}")
    return found


def audit_chains_verify(connection: Connection) -> list[str]:
    """Every event has the hash of the one before it in its chain, and its chain ends with the hash that it should."""
    query = """
        SELECT coalesce(r.id, e.workspace_id), coalesce(r.last_event_hash, a.last_hash),
               e.id, e.workspace_id, e.change_request_id, e.seq, e.type, e.state, e.created_at, e.actor, e.origin,
               e.body, e.previous_hash, e.hash
          FROM events e LEFT JOIN change_requests r ON r.id = e.change_request_id
          LEFT JOIN act_chains a ON a.workspace_id = e.workspace_id AND r.id IS NULL
         WHERE e.seq IS NOT NULL ORDER BY 1, e.seq
    """
    found = []
    with connection.cursor("audit_chains") as cursor:  # the server's: a log may be longer than memory
        cursor.execute(query)
        for (name, end), rows in itertools.groupby(cursor, key=lambda row: row[:2]):
            broken = _broken([link(Entry(*row[2:12]), *row[12:]) for row in rows], end or GENESIS)
            found += [f"{name}: event {broken.seq} {broken.what}"] if broken else []
    return found


def _broken(links: Sequence[Link], end: str) -> Broken | None:
    """Where a chain breaks; retention may have deleted how the acts of a workspace begin, not those of a request."""
    first = links[0]
    chain = Chain() if first.entry.change_request_id else Chain.in_the_middle(first)
    for each in links:
        broken = chain.follow(each)
        if broken is not None:
            return broken
    return None if chain.chained_hash == end else Broken(chain.seq, "is not what its chain should end with")


def no_event_without_its_delivery(connection: Connection) -> list[str]:
    """Every event of a change request has a delivery for every endpoint that was there before and wants everything."""
    query = """
        SELECT e.id, p.url FROM events e JOIN webhook_endpoints p USING (workspace_id)
         WHERE p.state = 'active' AND p.event_types = '{}' AND p.created_at < e.created_at
           AND e.change_request_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.event_id = e.id AND d.endpoint_id = p.id)
    """
    return [f"{event} is not on its way to {url}" for event, url in _rows(connection, query)]


def no_token_where_none_is_needed(connection: Connection) -> list[str]:
    """A commit token is kept by live requests before their commit and by heard prepares not decided, by nobody else."""
    query = """
        SELECT id FROM change_requests
         WHERE commit_token_sealed IS NOT NULL AND (state = ANY(%s) OR state = 'committed')
        UNION ALL SELECT id FROM inbound_events WHERE token_sealed IS NOT NULL AND verdict IS NOT NULL
    """
    return [f"{id_} still keeps a token" for (id_,) in _rows(connection, query, _values(TERMINAL))]


def no_commit_without_final_approval(connection: Connection) -> list[str]:
    """A commit was tried only by requests that were registered before, on evidence that names a block."""
    query = """
        SELECT r.id, r.evidence_block_hash FROM change_requests r WHERE r.commit_attempted_at IS NOT NULL
           AND (r.evidence_block_hash IS NULL OR NOT EXISTS (SELECT FROM events e
               WHERE e.change_request_id = r.id AND e.type = 'change_request.registered'))
    """
    return [f"{id_} tried to commit on evidence {block}" for id_, block in _rows(connection, query)]


def completed_runs_what_was_approved(connection: Connection) -> list[str]:
    """A completed request names its hash, the operation that brought it, and the evidence that it runs."""
    query = """
        SELECT id, compose_hash, correlation_id, running_evidence FROM change_requests WHERE state = 'completed'
           AND (compose_hash IS NULL OR correlation_id IS NULL OR running_evidence IS NULL)
    """
    return [f"{id_}: hash {h}, operation {c}, evidence {e}" for id_, h, c, e in _rows(connection, query)]


def one_request_holds_a_cvm(connection: Connection) -> list[str]:
    """At most one request before its commit for each CVM."""
    query = """
        SELECT vm_uuid, count(*) FROM change_requests WHERE state = ANY(%s) AND vm_uuid IS NOT NULL
         GROUP BY workspace_id, vm_uuid HAVING count(*) > 1
    """
    return [f"{n} requests hold {cvm}" for cvm, n in _rows(connection, query, _values(HOLDS_CVM))]


def no_live_proposal_nobody_waits_for(connection: Connection) -> list[str]:
    """A proposal that waits for the owners has a request that waits for it."""
    query = """
        SELECT p.id, p.state FROM proposals p WHERE p.state IN ('posting', 'queued', 'external') AND NOT EXISTS (
            SELECT FROM change_requests r WHERE r.proposal_id = p.id AND r.state = ANY(%s))
    """
    return [f"{id_} is {state} for nobody" for id_, state in _rows(connection, query, _values(HOLDS_CVM))]


def every_request_ended(connection: Connection) -> list[str]:
    """Every request is at an end."""
    query = "SELECT id, state, reason, detail FROM change_requests WHERE state = ANY(%s)"
    rows = _rows(connection, query, _values(LIVE))
    return [f"{id_} is still {state}: {reason} {detail or ''}".rstrip() for id_, state, reason, detail in rows]


def every_event_was_delivered(connection: Connection) -> list[str]:
    """Every delivery to an active endpoint was answered with success."""
    query = """
        SELECT d.event_id, d.state, d.attempts FROM webhook_deliveries d
          JOIN webhook_endpoints p ON p.id = d.endpoint_id
         WHERE p.state = 'active' AND d.state <> 'delivered'
    """
    return [f"{event} is {state} after {n} attempts" for event, state, n in _rows(connection, query)]


def every_proposal_ended(connection: Connection) -> list[str]:
    """No proposal is served any more."""
    query = "SELECT id, state, detail FROM proposals WHERE due_at IS NOT NULL"
    return [
        f"{id_} is {state}, still due: {detail or ''}".rstrip(": ") for id_, state, detail in _rows(connection, query)
    ]


ALWAYS: Final[tuple[Invariant, ...]] = (
    requests_ended_or_have_timer_and_reason,
    one_live_proposal_per_identity,
    one_live_approval_per_nonce,
    one_request_holds_a_cvm,
    event_sequences_have_no_gap,
    audit_chains_verify,
    no_state_without_its_event,
    no_event_without_its_delivery,
    no_token_where_none_is_needed,
    no_commit_without_final_approval,
    completed_runs_what_was_approved,
    no_live_proposal_nobody_waits_for,
)
AT_REST: Final[tuple[Invariant, ...]] = (every_request_ended, every_event_was_delivered, every_proposal_ended)


def check(dsn: str, invariants: Sequence[Invariant] = (*ALWAYS, *AT_REST)) -> dict[str, list[str]]:
    """The violations of each invariant, by its name, at one moment."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return {invariant.__name__: invariant(connection) for invariant in invariants}
