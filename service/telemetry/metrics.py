"""The metrics. Labels have few values: a route is its template, an RPC endpoint its number, nothing has an id."""

from typing import Final

from service.telemetry.catalogue import Catalogue

CATALOGUE: Final = Catalogue()

_ALL: Final = ("serve", "worker", "beat", "watch")
_ANSWER: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CALL: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

HTTP_REQUESTS: Final = CATALOGUE.counter(
    "http_requests",
    ("method", "route", "status"),
    "Requests to the API, by the template of their route (`none` if there is none) and the status of the answer",
    "serve",
)
HTTP_SECONDS: Final = CATALOGUE.histogram(
    "http_request_seconds",
    ("method", "route"),
    "Seconds from a request to the end of its answer; requests that wait for a change (`wait`) are left out",
    "serve",
    buckets=_ANSWER,
)
WAITING: Final = CATALOGUE.gauge(
    "waiting_clients", (), "Requests that wait for a change (`wait`), of 60 that one process holds at most", "serve"
)
TRANSITIONS: Final = CATALOGUE.counter(
    "transitions", ("source", "target"), "Changes of a change request's state, by edge", "worker"
)
ENDS: Final = CATALOGUE.counter(
    "ends", ("state", "reason"), "Change requests that ended, by state and reason code (empty without one)", "worker"
)
STEPS: Final = CATALOGUE.counter(
    "steps",
    ("verb", "outcome"),
    "Steps of change requests, proposals, chains, endpoints and accounts, by outcome: `advanced`, `waiting`, `failed` "
    "(counted and tried again), `ended`, `taken_over` (by another worker), `error` (a defect, the log has it)",
    "worker",
)
STEP_SECONDS: Final = CATALOGUE.histogram(
    "step_seconds", ("verb",), "Seconds that a step takes", "worker", buckets=_CALL
)
LEASES_LOST: Final = CATALOGUE.counter(
    "leases_lost", ("kind",), "Steps whose row another worker had taken over when they ended, by kind of row", "worker"
)
ROUND_TRIPS: Final = CATALOGUE.counter(
    "round_trips", ("queue",), "Messages of beat that came through a queue, one in 15 s for each", "worker"
)
DELIVERIES: Final = CATALOGUE.counter(
    "deliveries",
    ("outcome",),
    "Attempts to deliver a webhook: `delivered`, or the code of the fault, see docs/webhooks.md",
    "worker",
)
CALLS: Final = CATALOGUE.counter(
    "upstream_calls",
    ("service", "chain_id", "endpoint", "outcome"),
    "Calls to others by service (`phala`, `safe_service`, `rpc`, `webhook`), chain, number of the RPC endpoint, and "
    "outcome: `2xx` to `5xx`, `429`, `timeout`, `no_connection`, `broken`. Phala Cloud says 465 to a prepare: a `4xx`",
    "worker",
    "watch",
)
CALL_SECONDS: Final = CATALOGUE.histogram(
    "upstream_call_seconds",
    ("service", "chain_id", "endpoint"),
    "Seconds up to the head of an answer, or the fault; of webhooks up to its end",
    "worker",
    "watch",
    buckets=_CALL,
)
SAFE_QUOTA: Final = CATALOGUE.gauge(
    "safe_service_quota_requests",
    (),
    "Requests a month that the account at the Safe Transaction Service has (`COUNTERSIGN_SAFE_REQUESTS_PER_MONTH`)",
    "worker",
)
HEADS: Final = CATALOGUE.counter(
    "heads", ("chain_id", "by"), "New blocks that the listener rang for, heard by `subscription` or `poll`", "watch"
)
LEADING: Final = CATALOGUE.gauge("leading", ("chain_id",), "1 while this listener is the one that rings", "watch")

POOL: Final = CATALOGUE.figure(
    "database_connections",
    ("state",),
    "Connections of the process's pool: `in_use`, `idle`, and `most` that it may open",
    "serve",
    "worker",
    "watch",
)
DATABASE_UP: Final = CATALOGUE.figure(
    "database_up", (), "1 if the database answered the scrape; if not, the figures below are missing", "serve"
)
PROCESS: Final = CATALOGUE.figure("process", ("kind", "version"), "1: which process this is", *_ALL)

REQUESTS: Final = CATALOGUE.figure(
    "change_requests", ("state",), "Change requests that have not ended, by state", "serve"
)
DUE: Final = CATALOGUE.figure(
    "due_rows",
    ("kind",),
    "Rows that are due and not served: change requests, proposals, chains, accounts, deliveries",
    "serve",
)
OLDEST_DUE: Final = CATALOGUE.figure(
    "oldest_due_seconds", ("kind",), "Seconds for which the oldest of them has been due, 0 without one", "serve"
)
ENDPOINTS: Final = CATALOGUE.figure("webhook_endpoints", ("state",), "Webhook endpoints, by state", "serve")
BLOCKED: Final = CATALOGUE.figure("blocked_workspaces", (), "Workspaces that are blocked", "serve")
EXPIRING: Final = CATALOGUE.figure(
    "tokens_expiring", (), "Live change requests whose commit token ends within a day: nobody renews it", "serve"
)
HEAD: Final = CATALOGUE.figure("chain_head_block", ("chain_id",), "Newest block that was read", "serve")
FINAL_LAG: Final = CATALOGUE.figure(
    "chain_final_lag_blocks", ("chain_id",), "Blocks between the newest and the newest final one", "serve"
)
READ_AGE: Final = CATALOGUE.figure(
    "chain_read_age_seconds", ("chain_id",), "Seconds since a chain was last read", "serve"
)
QUEUE_AGE: Final = CATALOGUE.figure(
    "queue_round_trip_age_seconds", ("queue",), "Seconds since a message last came through a queue", "serve"
)
PARTS: Final = CATALOGUE.figure(
    "part_condition", ("part",), "How `/readyz` judges a part: 0 ok, 1 degraded, 2 failing", "serve"
)
