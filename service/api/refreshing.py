"""Asking for a fresh token: the body, and the store's refusals as problems."""

from service.api.bodies import PreparedUpdateBody
from service.api.fields import vm_uuid_in
from service.api.problems import (
    ALREADY_ENDED,
    COMMIT_STARTED,
    NOTHING_PREPARED,
    PREPARED_DIFFERS,
    InvalidPart,
    Problem,
    invalid,
)
from service.api.submissions import prepared_update, token_known
from service.domain.actors import Actor
from service.store import refreshing
from service.store.refreshing import AnotherUpdate, NoPatch, NothingPrepared
from service.store.requests import AlreadyEnded, CommitStarted, TokenAlreadySubmitted
from service.wiring import ApiParts

_MEMBERS = {"app_contract": "app_id", "cvm_id": "api_commit_url"}
"""Names of what differs as the body has them."""


def refresh(
    parts: ApiParts, workspace_id: str, request_id: str, prepared: PreparedUpdateBody | None, actor: Actor
) -> None:
    """Store the wish for a fresh token, or take the one in ``prepared``.

    Raises:
        Problem: it cannot be refreshed so.
    """
    now = parts.clock.now()
    try:
        if prepared is None:
            refreshing.wish_refresh(parts.database, workspace_id, request_id, now, actor)
            return
        url = prepared.api_commit_url
        vm_uuid = vm_uuid_in(url.get_secret_value()) if url else None
        update = prepared_update(prepared, parts.chains)
        refreshing.hand_in(parts.database, workspace_id, request_id, update, vm_uuid, now, actor)
    except NoPatch:
        raise invalid("#/prepared", "is required, because the service does not know the patch") from None
    except NothingPrepared:
        raise Problem(NOTHING_PREPARED, f"{NOTHING_PREPARED.meaning} {NOTHING_PREPARED.remedy}") from None
    except AnotherUpdate as error:
        pointer = f"#/prepared/{_MEMBERS.get(error.member, error.member)}"
        part = InvalidPart(pointer=pointer, detail="differs from the change request")
        raise Problem(PREPARED_DIFFERS, f"{pointer}: {part.detail}. {PREPARED_DIFFERS.remedy}", errors=[part]) from None
    except TokenAlreadySubmitted as error:
        raise token_known(error) from None
    except CommitStarted:
        raise Problem(COMMIT_STARTED, "The commit has begun: it renews its token itself where it can.") from None
    except AlreadyEnded:
        raise Problem(ALREADY_ENDED, f"{ALREADY_ENDED.meaning} {ALREADY_ENDED.remedy}") from None
