"""The tables. PostgreSQL only; ``migrations/`` builds the same, and a test holds the two together.

Every row belongs to a workspace, directly or through its parent. Live rows have ``due_at`` (when the sweep rings for
them), ``lease_until`` and ``fence`` (who may write them now). Hashes are ``0x``-prefixed lower-case hex, addresses
checksummed. Columns ending in ``_sealed`` hold ciphertext of ``service.store.sealing``.
"""

from service.store.tables.approvals import Proposal, SafeTransaction
from service.store.tables.callers import ApiKey, IdempotentAnswer, RateBucket
from service.store.tables.chain import ChainCursor, ChainFact
from service.store.tables.change_requests import ChangeRequest
from service.store.tables.inbound import CommitToken, InboundEvent
from service.store.tables.outbox import ActChain, Event, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from service.store.tables.processes import Heartbeat
from service.store.tables.workspaces import ExternalApp, RegisteredSafe, Workspace

__all__ = [
    "ActChain",
    "ApiKey",
    "ChainCursor",
    "ChainFact",
    "ChangeRequest",
    "CommitToken",
    "Event",
    "ExternalApp",
    "Heartbeat",
    "IdempotentAnswer",
    "InboundEvent",
    "Proposal",
    "RateBucket",
    "RegisteredSafe",
    "SafeTransaction",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Workspace",
]
