"""Acts on a workspace: events of its audit log, which its feed shows where asked, and which are not sent. Pure."""

from enum import StrEnum
from typing import Final


class Act(StrEnum):
    """What somebody did to a workspace."""

    WORKSPACE_CREATED = "workspace.created"
    WORKSPACE_UPDATED = "workspace.updated"
    SECRETS_ROTATED = "workspace.secrets_rotated"
    KEY_CREATED = "api_key.created"
    KEY_ROTATED = "api_key.rotated"
    KEY_REVOKED = "api_key.revoked"
    ENDPOINT_CREATED = "webhook_endpoint.created"
    ENDPOINT_UPDATED = "webhook_endpoint.updated"
    ENDPOINT_SECRET_ROTATED = "webhook_endpoint.secret_rotated"  # noqa: S105 - the name of an event
    ENDPOINT_DELETED = "webhook_endpoint.deleted"
    DELIVERY_RESENT = "webhook_endpoint.delivery_resent"
    EVENTS_REPLAYED = "webhook_endpoint.events_replayed"


ACT_MEANINGS: Final[dict[Act, tuple[str, tuple[str, ...]]]] = {
    Act.WORKSPACE_CREATED: ("the workspace was made", ("workspace", "changes")),
    Act.WORKSPACE_UPDATED: ("settings were changed; of secrets only that they were", ("workspace", "changes")),
    Act.SECRETS_ROTATED: ("every stored secret was encrypted again", ("key_id", "unreadable")),
    Act.KEY_CREATED: ("an API key was made", ("api_key",)),
    Act.KEY_ROTATED: ("an API key was replaced", ("api_key", "replaced")),
    Act.KEY_REVOKED: ("an API key was ended", ("api_key",)),
    Act.ENDPOINT_CREATED: ("a webhook endpoint was made", ("webhook_endpoint",)),
    Act.ENDPOINT_UPDATED: ("a webhook endpoint was changed, paused or resumed", ("webhook_endpoint", "changed")),
    Act.ENDPOINT_SECRET_ROTATED: ("an endpoint's secret was replaced", ("webhook_endpoint", "overlap_ends_at")),
    Act.ENDPOINT_DELETED: ("a webhook endpoint was deleted", ("webhook_endpoint",)),
    Act.DELIVERY_RESENT: ("a delivery was sent again", ("webhook_endpoint", "delivery_id", "event_id")),
    Act.EVENTS_REPLAYED: ("a range of events was sent again", ("webhook_endpoint", "deliveries", "since", "until")),
}
"""When each happens, and what is in its ``data``."""
