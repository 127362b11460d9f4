"""The workspace's registered webhooks, what was sent to them, and sending one of it again."""

from __future__ import annotations

from service.phala.identifiers import path
from service.phala.models.webhooks import Webhook, WebhookDelivery
from service.phala.transport import Functions


class WebhookReads(Functions):
    """Webhooks as Phala Cloud's server describes them; the official SDK has none of these.

    Errors: any of `service.phala.errors`.
    """

    def list_webhooks(self) -> tuple[Webhook, ...]:
        """``GET /workspace/webhooks``: all receivers of the key's workspace, without their secrets."""
        return self._transport.call("GET", path("workspace", "webhooks")).model(tuple[Webhook, ...])

    def list_webhook_deliveries(
        self, *, webhook_id: str, limit: int | None = None, offset: int | None = None
    ) -> tuple[WebhookDelivery, ...]:
        """``GET /workspace/webhooks/{webhook_id}/deliveries``: what was sent to one, a page at a time.

        Args:
            webhook_id: of `list_webhooks`.
            limit: how many at most (the server assumes 50).
            offset: how many to leave out. The order is not documented; the newest are expected first.
        """
        target = path("workspace", "webhooks", webhook_id, "deliveries")
        answer = self._transport.call("GET", target, query={"limit": limit, "offset": offset})
        return answer.model(tuple[WebhookDelivery, ...])

    def resend_webhook_delivery(self, *, webhook_id: str, event_id: str) -> None:
        """``POST /workspace/webhooks/{webhook_id}/deliveries/{event_id}/resend``: send an event again.

        It arrives under an id of its own, which the list of deliveries links to this one. The answer is not documented
        and not read.
        """
        self._transport.call("POST", path("workspace", "webhooks", webhook_id, "deliveries", event_id, "resend"))
