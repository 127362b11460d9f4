"""A body that passed its schema, as the submission that the store takes; and the store's refusals as problems."""

from collections.abc import Mapping
from typing import Final

from service.api.bodies import PreparedUpdateBody, SubmitBody
from service.api.fields import UUID, dashed, vm_uuid_in
from service.api.patch import warnings_about
from service.api.problems import (
    CHAIN_NOT_CONFIGURED,
    NOT_PERMITTED,
    TOKEN_ALREADY_SUBMITTED,
    InvalidPart,
    Problem,
    invalid,
)
from service.domain import chain_names
from service.domain.actors import Actor
from service.domain.reasons import ADVICE, Reason
from service.store import requests
from service.store.requests import PreparedUpdate, Submission
from service.store.tables import ChangeRequest
from service.wiring import ApiParts, ChainLinks

_NO_CVM: Final = "is required with patch: name the CVM to change"


def submission(body: SubmitBody, workspace_id: str, chains: Mapping[int, ChainLinks]) -> Submission:
    """What the store is asked to keep.

    Raises:
        Problem: ``invalid_request`` or ``chain_not_configured``.
    """
    if body.patch is None and body.prepared is None:
        raise invalid("#", "give `patch`, or what `phala deploy --prepare-only --json` printed as `prepared`")
    patch = None if body.patch is None else dict(body.patch)
    return Submission(
        workspace_id=workspace_id,
        cvm_id=_cvm_id(body),
        patch=patch,
        prepared=None if body.prepared is None else prepared_update(body.prepared, chains),
        title=body.title,
        allow_without_approval=body.allow_without_approval,
        warnings=warnings_about(patch or {}),
        deadline_seconds=body.deadline_seconds,
    )


def _cvm_id(body: SubmitBody) -> str:
    url = body.prepared.api_commit_url if body.prepared else None
    told = vm_uuid_in(url.get_secret_value()) if url else None
    given = body.cvm_id
    if given is None:
        if told is None and body.prepared is None:
            raise invalid("#/cvm_id", _NO_CVM)
        if told is None:
            raise invalid("#/cvm_id", "is required, because prepared.api_commit_url does not tell the CVM")
        return told
    if told is not None and UUID.fullmatch(given) and dashed(given) != told:
        raise invalid("#/cvm_id", "the prepared update belongs to another CVM (see prepared.api_commit_url)")
    return given


def prepared_update(body: PreparedUpdateBody, chains: Mapping[int, ChainLinks]) -> PreparedUpdate:
    """A prepared update as the store takes it.

    Raises:
        Problem: ``invalid_request`` or ``chain_not_configured``.
    """
    chain_id = _chain_id(body, chains)
    if chain_id not in chains:
        part = InvalidPart(pointer="#/prepared/chain_id", detail=f"chain {chain_id} is not configured")
        advice = ADVICE[Reason.CHAIN_NOT_CONFIGURED]
        raise Problem(CHAIN_NOT_CONFIGURED, f"{part.pointer}: {part.detail}. {advice}", errors=[part])
    return PreparedUpdate(
        chain_id=chain_id,
        app_contract=chain_names.split(body.app_id)[1],
        device_id=body.device_id,
        compose_hash=body.compose_hash,
        commit_token=body.commit_token,
    )


def _chain_id(body: PreparedUpdateBody, chains: Mapping[int, ChainLinks]) -> int:
    told = body.chain
    if body.kms_info is not None and body.kms_info.chain_id not in (None, told):
        raise invalid("#/prepared/chain_id", "differs from kms_info.chain_id")
    short_name, _ = chain_names.split(body.app_id)
    if short_name is not None:
        try:
            named = chain_names.chain_id_of(short_name, {chain.name: key for key, chain in chains.items()})
        except ValueError as error:
            raise invalid("#/prepared/app_id", str(error)) from None
        if told not in (None, named):
            raise invalid("#/prepared/app_id", f"{short_name!r} is chain {named}, but the update is for chain {told}")
        return named
    if told is None:
        raise invalid("#/prepared/chain_id", "is required: an update without a chain needs no approval on one")
    return told


def store(parts: ApiParts, asked: Submission, actor: Actor) -> ChangeRequest:
    """Keep a submission.

    Raises:
        Problem: ``not_permitted`` or ``token_already_submitted``.
    """
    try:
        return requests.submit(parts.database, asked, parts.clock.now(), actor)
    except requests.NotAllowedHere:
        raise Problem(
            NOT_PERMITTED,
            "The workspace does not permit allow_without_approval: leave it out, or ask its operator.",
            errors=[InvalidPart(pointer="#/allow_without_approval", detail="is not permitted in this workspace")],
        ) from None
    except requests.TokenAlreadySubmitted as error:
        raise token_known(error) from None


def token_known(error: requests.TokenAlreadySubmitted) -> Problem:
    """The problem of a token that belongs to a change request."""
    holder = f"change request {error.holder}" if error.holder else "another change request"
    detail = f"The commit token belongs to {holder}: follow that one, or prepare again."
    return Problem(TOKEN_ALREADY_SUBMITTED, detail)
