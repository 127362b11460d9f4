"""What Phala Cloud sends. Whoever signs with a secret of the workspace is let in, nobody else learns anything."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from service.api.deps import origin_of
from service.api.problems import INVALID_REQUEST, SIGNATURE_REFUSED, Problem
from service.domain.hexes import address, bytes32
from service.domain.prepares import TOKEN_LIFETIME, HeardPrepare
from service.phala import webhooks
from service.store import inbound, workspaces
from service.store.inbound import Told

if TYPE_CHECKING:
    from service.wiring import ApiParts

router = APIRouter(prefix="/v1/hooks", tags=["webhooks from Phala Cloud"], include_in_schema=False)

_LONGEST: Final = 200
_LARGEST: Final = 2**63 - 1
_OLDEST, _NEWEST = timedelta(days=60), TOKEN_LIFETIME + timedelta(days=1)
"""How far in the past and in the future the end of a token makes sense."""


async def _raw_body(request: Request) -> bytes:
    return await request.body()


@router.post("/phala/{workspace}", status_code=204)
def phala(workspace: str, request: Request, body: Annotated[bytes, Depends(_raw_body)]) -> Response:
    """Store a prepare that Phala Cloud tells of; acknowledge everything else that is signed."""
    parts: ApiParts = request.app.state.parts
    known = workspaces.phala_webhook_secrets(parts.database, workspace)
    workspace_id, secrets = known if known is not None else ("", [])
    now = parts.clock.now()
    try:
        event = webhooks.parse(body, request.headers, secrets, now=now.timestamp())
        told = _told(event, now, origin_of(request)) if isinstance(event, webhooks.PendingApproval) else None
    except (webhooks.WebhookHeadersMissing, webhooks.WebhookSignatureInvalid):
        # The same for a workspace that does not exist.
        raise Problem(SIGNATURE_REFUSED, SIGNATURE_REFUSED.meaning) from None
    except (webhooks.WebhookMalformed, ValueError):
        raise Problem(INVALID_REQUEST, "The signed body is no event of the documented form.") from None
    if told is not None:
        inbound.hear(parts.database, workspace_id, told, now)
    return Response(status_code=204)


def _told(event: webhooks.PendingApproval, now: datetime, origin: Mapping[str, str]) -> Told:
    """The event in our forms.

    Raises:
        ValueError: a member is not what it should be; the message may repeat it.
    """
    data = event.data
    app_contract = address(data.app_id)
    if address(data.onchain_action.to) != app_contract:
        raise ValueError("the event contradicts itself")
    sensible = len(event.id) <= _LONGEST and 0 < data.kms.chain_id <= _LARGEST and data.commit_token.get_secret_value()
    if not sensible or not now - _OLDEST < data.expires_at < now + _NEWEST:
        raise ValueError("a member makes no sense")
    prepare = HeardPrepare(
        id="",
        chain_id=data.kms.chain_id,
        app_contract=app_contract,
        device_id=bytes32(data.device_id),
        compose_hash=bytes32(data.compose_hash),
        token=data.commit_token,
        expires_at=data.expires_at,
    )
    name = data.cvm_name if data.cvm_name is None or data.cvm_name.isprintable() else None
    return Told(event.id, str(UUID(data.cvm_id)), name[:_LONGEST] if name else None, prepare, origin)
