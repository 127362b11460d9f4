"""Who does something, and from where. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

_LONGEST: Final = 200


class ActorKind(StrEnum):
    """What kind of somebody acts."""

    API_KEY = "api_key"
    OPERATOR = "operator"
    SYSTEM = "system"
    SAFE_OWNERS = "safe_owners"
    PHALA_CLOUD = "phala_cloud"


ACTOR_MEANINGS: Final[dict[ActorKind, tuple[str, str, str]]] = {
    ActorKind.API_KEY: ("whoever holds an API key of the workspace", "the key", "the key's, as it was then"),
    ActorKind.OPERATOR: ("who runs the `countersign` command beside the database", "", "the user of the machine"),
    ActorKind.SYSTEM: ("the service", "", "the part of it: the verb of a step, or `deliver`"),
    ActorKind.SAFE_OWNERS: ("owners of the Safe, in `owners`, whose signatures were verified", "", ""),
    ActorKind.PHALA_CLOUD: ("Phala Cloud, by a signed webhook", "its event", ""),
}
"""Who each is, and what ``id`` and ``name`` are."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who acts.

    Attributes:
        kind: what ``id`` and ``name`` mean, see ``ACTOR_MEANINGS``.
        owners: checksummed addresses, of Safe owners only.
        origin: where the act came from: ``ip``, ``user_agent`` and ``request_id`` of a request as the server saw it, or
            ``host`` of the command line; nothing of what the service does by itself.
    """

    kind: ActorKind
    id: str | None = None
    name: str | None = None
    owners: tuple[str, ...] = ()
    origin: Mapping[str, str] | None = None

    @classmethod
    def system(cls, part: str) -> Self:
        """A part of the service."""
        return cls(ActorKind.SYSTEM, name=part)

    @classmethod
    def operator(cls, user: str, host: str) -> Self:
        """Who runs a command on a machine."""
        return cls(ActorKind.OPERATOR, name=printable(user), origin={"host": printable(host)})

    @classmethod
    def signers(cls, owners: tuple[str, ...]) -> Self:
        """Owners of a Safe."""
        return cls(ActorKind.SAFE_OWNERS, owners=owners)

    def as_json(self) -> dict[str, object]:
        """Who it is, without where from, as events show it."""
        return {"kind": self.kind.value, "id": self.id, "name": self.name, "owners": list(self.owners)}


def request_origin(ip: str | None, user_agent: str | None, request_id: str) -> dict[str, str]:
    """Where a request came from; what it says of itself is clipped and made printable."""
    told = {"ip": ip, "user_agent": user_agent, "request_id": request_id}
    return {name: printable(value) for name, value in told.items() if value}


def printable(text: str) -> str:
    """Text that any log and database can hold, with a question mark for what they cannot; at most 200 characters."""
    return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST])
