"""What must hold in the outside world: by the sandbox's ledgers, the chain, the receiver, and what was written down."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import redis

from sandbox.chain.safes import next_nonce
from service.domain.calls import add_compose_hash
from tests.chaos.site import Site
from tests.support import leaks

Json = dict[str, Any]
FINALITY_BLOCKS: Final = 2
_COLUMNS: Final = (
    "id",
    "state",
    "vm_uuid",
    "compose_hash",
    "app_contract",
    "device_id",
    "evidence_block_number",
    "commit_attempted_at",
    "updated_at",
)
_TOLD: Final = "SELECT id FROM events WHERE change_request_id IS NOT NULL"
_LIKE_A_TOKEN: Final = re.compile(rb"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Outside:
    """What the outside world says, gathered once.

    Attributes:
        requests: columns of every change request of the database.
        commits: accepted ones, of Phala Cloud's ledger.
        executed: (app, hash) of each transaction that the Safes executed for an app.
        waiting: (app, hash) of each approval in the Safes' queues whose nonce is not used up.
        allowed: (app, hash, device, block) -> whether the contract says so at that block.
        heads: (time, head) as the chain grew, oldest first.
        received: events at the receiver, by id, and whether the signature held.
        events: ids of those that are told to receivers; acts on a workspace are not.
        running: CVM -> hash that it runs.
        written: everything written down anywhere, by place.
        tokens: every commit token that went over the wire.
    """

    requests: tuple[Json, ...]
    commits: tuple[Json, ...]
    executed: tuple[tuple[str, str], ...]
    waiting: tuple[tuple[str, str], ...]
    allowed: Callable[[str, str, str, int], bool]
    heads: tuple[tuple[float, int], ...]
    received: dict[str, bool]
    events: frozenset[str]
    running: dict[str, str]
    written: dict[str, bytes]
    tokens: frozenset[str]


Invariant = Callable[[Outside], list[str]]


def one_accepted_commit_per_request(outside: Outside) -> list[str]:
    """Phala Cloud accepted at most one commit for each CVM and hash, and exactly one for each that completed."""
    found = []
    accepted = Counter((one["vm_uuid"], _hash(one["compose_hash"])) for one in outside.commits)
    found += [f"{n} commits of {key[1]} on {key[0]}" for key, n in accepted.items() if n > 1]
    for request in outside.requests:
        key = (request["vm_uuid"], request["compose_hash"])
        if request["state"] == "completed" and request["commit_attempted_at"] and accepted[key] != 1:
            found.append(f"{request['id']} completed with {accepted[key]} commits")
    return found


def no_commit_of_another_hash(outside: Outside) -> list[str]:
    """Every accepted commit is of the hash of a request for that CVM that was registered."""
    wanted = {(one["vm_uuid"], one["compose_hash"]) for one in outside.requests if one["commit_attempted_at"]}
    keys = ((one["vm_uuid"], _hash(one["compose_hash"])) for one in outside.commits)
    return [f"a commit of {key[1]} on {key[0]}, which nobody asked for" for key in keys if key not in wanted]


def no_commit_before_a_final_approval(outside: Outside) -> list[str]:
    """At the block of its evidence the contract allows hash and device, and that block was final when it committed."""
    found = []
    when = {(one["vm_uuid"], _hash(one["compose_hash"])): one["at"] for one in outside.commits}
    for request in outside.requests:
        block = request["evidence_block_number"]
        at = when.get((request["vm_uuid"], request["compose_hash"]))
        if at is None or not request["commit_attempted_at"]:
            continue
        if not outside.allowed(request["app_contract"], request["compose_hash"], request["device_id"], block):
            found.append(f"{request['id']} committed, and block {block} does not allow it")
        later = next((head for seen, head in outside.heads if seen >= at), None)
        if later is not None and later < block + FINALITY_BLOCKS:
            found.append(f"{request['id']} committed at head {later}, on evidence of block {block}")
    return found


def one_executed_approval_per_identity(outside: Outside) -> list[str]:
    """The owners executed an approval once for each app and hash."""
    return [f"{n} approvals of {key[1]} at {key[0]} executed" for key, n in Counter(outside.executed).items() if n > 1]


def one_waiting_approval_per_identity(outside: Outside) -> list[str]:
    """The Safes' queues hold at most one approval for each app and hash."""
    return [f"{n} approvals of {key[1]} at {key[0]} wait" for key, n in Counter(outside.waiting).items() if n > 1]


def every_event_arrived(outside: Outside) -> list[str]:
    """Every event came to the receiver at least once, with a signature that held."""
    missing = sorted(outside.events - {event for event, verified in outside.received.items() if verified})
    return [f"{event} never arrived" for event in missing]


def completed_cvms_run_it(outside: Outside) -> list[str]:
    """The newest completed request of each CVM names the hash that it runs."""
    newest: dict[str, Json] = {}
    for request in sorted(outside.requests, key=lambda one: one["updated_at"]):
        if request["state"] == "completed":
            newest[request["vm_uuid"]] = request
    return [
        f"{request['id']} completed with {request['compose_hash']}, {cvm} runs {outside.running.get(cvm)}"
        for cvm, request in newest.items()
        if cvm in outside.running and outside.running[cvm] != request["compose_hash"]
    ]


def no_token_written_down(outside: Outside) -> list[str]:
    """No commit token that went over the wire stands in a log, a table, the broker, or a webhook."""
    wanted = {token.replace("-", "").lower() for token in outside.tokens}
    found = []
    for place, content in outside.written.items():
        seen = {one.replace(b"-", b"").decode() for one in _LIKE_A_TOKEN.findall(content.lower())}
        found += [f"a token in {place}"] * len(seen & wanted)
    return found


LEDGERS: Final[tuple[Invariant, ...]] = (
    one_accepted_commit_per_request,
    no_commit_of_another_hash,
    no_commit_before_a_final_approval,
    one_executed_approval_per_identity,
    one_waiting_approval_per_identity,
    every_event_arrived,
    completed_cvms_run_it,
    no_token_written_down,
)


def check(outside: Outside) -> dict[str, list[str]]:
    """The violations of each, by its name."""
    return {invariant.__name__: invariant(outside) for invariant in LEDGERS}


# Gathering


def gather(site: Site, heads: tuple[tuple[float, int], ...], tokens: frozenset[str]) -> Outside:
    """Ask everybody.

    Args:
        site: the whole.
        heads: (time, head) as they were seen.
        tokens: as they were seen on the wire.
    """
    columns = ", ".join(_COLUMNS)
    requests = [dict(zip(_COLUMNS, row, strict=True)) for row in site.rows(f"SELECT {columns} FROM change_requests")]
    executed, waiting = _approvals(site, requests)
    cvms = {str(one["vm_uuid"]) for one in requests if one["state"] == "completed"}
    return Outside(
        requests=tuple(requests),
        commits=tuple(site.world.phala.accepted_commits()),
        executed=executed,
        waiting=waiting,
        allowed=lambda *what: _allowed(site, *what),
        heads=heads,
        received={one.message_id: one.verified for one in site.receiver.received()},
        events=frozenset(str(row[0]) for row in site.rows(_TOLD)),
        running={cvm: "0x" + str(site.world.phala.cvm(cvm)["running_compose_hash"]) for cvm in cvms},
        written=_written(site),
        tokens=tokens,
    )


def _approvals(site: Site, requests: Sequence[Json]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """(app, hash) of what the Safes executed, and of what waits in their queues."""
    hashes = {str(one["compose_hash"]) for one in requests if one["compose_hash"]}
    hash_of = {"0x" + add_compose_hash(compose_hash).hex(): compose_hash for compose_hash in hashes}
    executed, waiting = [], []
    for (safe,) in site.rows("SELECT DISTINCT safe FROM safe_transactions"):
        used = next_nonce(site.world.chain, safe)
        for one in _queue(site, safe):
            if one["data"] not in hash_of:
                continue
            key = (str(one["to"]), hash_of[one["data"]])
            if one["isExecuted"]:
                executed.append(key)
            elif int(one["nonce"]) >= used:
                waiting.append(key)
    return tuple(executed), tuple(waiting)


def _queue(site: Site, safe: str) -> Iterator[Json]:
    """Every transaction of a Safe that its Transaction Service knows, executed or not."""
    url: str | None = (
        f"{site.world.safe_service_url}/api/v2/safes/{safe}/multisig-transactions/?limit=100&trusted=false"
    )
    while url:
        page = httpx.get(url, timeout=30).raise_for_status().json()
        yield from page["results"]
        url = page["next"]


def _allowed(site: Site, app: str, compose_hash: str, device: str, block: int) -> bool:
    at = hex(block)

    def listed(signature: str, *arguments: bytes) -> bool:
        return bool(site.world.chain.call(app, signature, *arguments, returns="bool", block=at))

    return listed("allowedComposeHashes(bytes32)", bytes.fromhex(compose_hash[2:])) and (
        listed("allowAnyDevice()") or listed("allowedDeviceIds(bytes32)", bytes.fromhex(device[2:]))
    )


def _written(site: Site) -> dict[str, bytes]:
    with redis.Redis.from_url(site.deployment.redis_url) as broker:
        kept = {f"broker {key!r}": broker.dump(key) or b"" for key in broker.scan_iter()}
    return {
        **{path.name: path.read_bytes() for path in site.deployment.logs},
        **leaks.tables(site.dsn),
        **kept,
        "webhooks": leaks.as_bytes([one.payload for one in site.receiver.received()]),
    }


def _hash(text: str) -> str:
    return "0x" + text.lower().removeprefix("0x")
