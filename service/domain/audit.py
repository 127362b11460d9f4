"""The audit log's chains of hashes: how an event is hashed, and how a chain is followed. Pure.

There is a chain for each change request, and one for each workspace's own acts. A hash is the SHA-256 of the canonical
JSON of an event (members sorted, no spaces, UTF-8), in which the hash of the event before it is a member.
``docs/operations.md`` says the same for those who verify with other tools.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

GENESIS: Final = "0" * 64
"""What the first event of a chain has in place of a hash before it."""
_TAIL: Final = re.compile(r',"previous_hash":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z')


@dataclass(frozen=True, slots=True)
class Entry:
    """An event with all that its hash covers.

    Attributes:
        change_request_id: ``None`` for an act on the workspace.
        seq: its place in its chain, from 1 on.
        body: the text that webhooks carry, without its last two members, the hashes.
    """

    id: str
    workspace_id: str
    change_request_id: str | None
    seq: int
    type: str
    state: str | None
    created_at: datetime
    actor: Mapping[str, Any] | None
    origin: Mapping[str, str] | None
    body: str

    def digest(self, previous_hash: str) -> str:
        """Its hash, 64 hex digits, behind an event of another hash."""
        members = {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "change_request_id": self.change_request_id,
            "seq": self.seq,
            "type": self.type,
            "state": self.state,
            "created_at": moment(self.created_at),
            "actor": self.actor,
            "origin": self.origin,
            "body": self.body,
            "previous_hash": previous_hash,
        }
        return hashlib.sha256(canonical(members).encode()).hexdigest()


def canonical(value: Mapping[str, Any]) -> str:
    """The one JSON text of a value that holds texts, whole numbers, lists and objects."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def moment(time: datetime) -> str:
    """A time as hashes cover it: UTC, with six digits of a second."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def with_hashes(body: str, previous_hash: str, own_hash: str) -> str:
    """The text of a JSON object with the hashes as its last members."""
    return f'{body[:-1]},"previous_hash":"{previous_hash}","hash":"{own_hash}"}}'


def split_hashes(body: str) -> tuple[str, tuple[str, str] | None]:
    """A body without its hashes, and these: that of the event before and its own. ``None``: it has none."""
    found = _TAIL.search(body)
    return (body, None) if found is None else (body[: found.start()] + "}", (found[1], found[2]))


@dataclass(frozen=True, slots=True)
class Link:
    """An event as it is stored.

    Attributes:
        entry: what its hash covers.
        in_body: the hashes in its body, that of the event before and its own.
        stored: the hashes beside it, likewise; ``None`` for one that a version without hashes wrote.
    """

    entry: Entry
    in_body: tuple[str, str] | None
    stored: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Broken:
    """Where a chain is broken.

    Attributes:
        seq: of the event that is missing or not what it was.
        what: one line for people.
    """

    seq: int
    what: str


@dataclass(slots=True)
class Chain:
    """A chain that is followed from link to link.

    A link without hashes, of a version that did not write them, is covered by the next that has them: its hash can be
    computed as well.

    Attributes:
        seq, hash: of the last link; the hash is computed where none is stored, ``None`` where it cannot be known.
        chained_seq, chained_hash: of the last link with a hash of its own; 0 and ``GENESIS`` for none.
        begins: the number of the first link; above 1 where what was before is not at hand.
    """

    seq: int = 0
    hash: str | None = GENESIS
    chained_seq: int = 0
    chained_hash: str = GENESIS
    begins: int = 1

    @classmethod
    def in_the_middle(cls, first: Link) -> "Chain":
        """A chain of which a link is the first at hand; what it says about the link before it is believed."""
        seq = first.entry.seq
        return cls() if seq == 1 else cls(seq - 1, hash=None, begins=seq)

    @property
    def uncovered(self) -> int:
        """Links at the end that no hash covers yet."""
        return self.seq - max(self.chained_seq, self.begins - 1)

    def follow(self, link: Link) -> Broken | None:
        """Go on to the next link, or say why it cannot be it."""
        seq = link.entry.seq
        if seq != self.seq + 1:
            return Broken(self.seq + 1, "is missing" if seq > self.seq else f"is missing, number {seq} is there again")
        previous = self.hash if link.stored is None else link.stored[0]
        own = None if previous is None else link.entry.digest(previous)
        broken = _altered(link, own) or self._torn_off(link)
        if broken is not None:
            return Broken(seq, broken)
        self.seq, self.hash = seq, own
        if link.stored is not None:
            self.chained_seq, self.chained_hash = seq, link.stored[1]
        return None

    def _torn_off(self, link: Link) -> str | None:
        if link.stored is None or self.hash is None or link.stored[0] == self.hash:
            return None
        return "has another previous hash than the event before it gives: that one is not what it was"


def _altered(link: Link, own: str | None) -> str | None:
    if link.stored is None:
        return None
    if own != link.stored[1]:
        return "was altered: it does not have the hash that is stored"
    return None if link.in_body == link.stored else "was altered: its body names other hashes than are stored"


def link(entry: Entry, previous_hash: str | None, own_hash: str | None) -> Link:
    """An event with the hashes that are stored beside it, its body as it is sent."""
    if previous_hash is None or own_hash is None:
        # All of the body counts, also hashes that are left in it from before a downgrade.
        return Link(entry, None, None)
    body, in_body = split_hashes(entry.body)
    return Link(replace(entry, body=body), in_body, (previous_hash, own_hash))


def link_of_json(line: str) -> Link | None:
    """A line of an export as a link; ``None`` for an event without a number, from before there was a chain for it.

    Raises:
        ValueError: it is no such line.
    """
    try:
        members = json.loads(line)
        if members["seq"] is None:
            return None
        names = ("id", "workspace_id", "change_request_id", "type", "state", "actor", "origin", "body")
        entry = Entry(
            seq=int(members["seq"]),
            created_at=datetime.fromisoformat(members["created_at"]),
            **{name: members[name] for name in names},
        )
        return link(entry, members["previous_hash"], members["hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("it is no line of an export") from error


class Chains:
    """Chains whose events come mixed, as in an export: of each it keeps where it is."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}

    def follow(self, each: Link) -> tuple[str, Broken | None]:
        """The name of the chain that a link belongs to, and why it cannot be its next, if so."""
        name = each.entry.change_request_id or each.entry.workspace_id
        if name not in self._chains:
            self._chains[name] = Chain.in_the_middle(each)
        return name, self._chains[name].follow(each)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._chains)

    @property
    def uncovered(self) -> int:
        """Links at their ends that no hash covers."""
        return sum(chain.uncovered for chain in self._chains.values())

    @property
    def begun_late(self) -> int:
        """Chains whose first links are not at hand."""
        return sum(chain.begins > 1 for chain in self._chains.values())
