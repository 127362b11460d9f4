"""A body that passed its schema, as the submission that the store takes; and the store's refusals as problems."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from service.api.bodies import PreparedUpdateBody, SubmitBody
from service.api.deps import Caller
from service.api.fields import UUID, dashed, vm_uuid_in
from service.api.patch import warnings_about
from service.api.problems import (
    CHAIN_NOT_CONFIGURED,
    COMMIT_STARTED,
    CVM_BUSY,
    NOT_PERMITTED,
    TOKEN_ALREADY_SUBMITTED,
    InvalidPart,
    Problem,
    RequestRef,
    invalid,
)
from service.domain import chain_names
from service.domain.api_keys import Scope
from service.domain.reasons import ADVICE, Reason
from service.store import requests
from service.store.requests import PreparedUpdate, Submission
from service.store.tables import ChangeRequest
from service.telemetry.traces import traceparent
from service.wiring import ChainLinks

_NO_CVM: Final = "is required with patch: name the CVM to change"


def submission(body: SubmitBody, caller: Caller) -> Submission:
    """What the store is asked to keep.

    Raises:
        Problem: ``invalid_request`` or ``chain_not_configured``.
    """
    if body.patch is None and body.prepared is None:
        raise invalid("#", "give `patch`, or what `phala deploy --prepare-only --json` printed as `prepared`")
    patch = None if body.patch is None else dict(body.patch)
    cvm_id, vm_uuid = _cvm(body)
    return Submission(
        workspace_id=caller.workspace_id,
        cvm_id=cvm_id,
        vm_uuid=vm_uuid,
        patch=patch,
        prepared=None if body.prepared is None else prepared_update(body.prepared, caller.parts.chains),
        title=body.title,
        allow_without_approval=body.allow_without_approval,
        warnings=warnings_about(patch or {}),
        deadline_seconds=body.deadline_seconds,
        change_reason=body.reason,
        change_links=body.links,
        change_metadata=body.metadata,
        on_conflict=body.on_conflict,
        commit_policy=body.commit_policy,
        may_loosen=caller.holder.scope.includes(Scope.MANAGE),
        not_before=body.not_before,
    )


def _cvm(body: SubmitBody) -> tuple[str, str | None]:
    """The CVM as it was named, and its vm uuid where that is told."""
    url = body.prepared.api_commit_url if body.prepared else None
    told = vm_uuid_in(url.get_secret_value()) if url else None
    given = body.cvm_id
    if given is None:
        if told is None and body.prepared is None:
            raise invalid("#/cvm_id", _NO_CVM)
        if told is None:
            raise invalid("#/cvm_id", "is required, because prepared.api_commit_url does not tell the CVM")
        return told, told
    vm_uuid = dashed(given) if UUID.fullmatch(given) else None
    if None not in (told, vm_uuid) and vm_uuid != told:
        raise invalid("#/cvm_id", "the prepared update belongs to another CVM (see prepared.api_commit_url)")
    return given, told or vm_uuid


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


def store(asked: Submission, caller: Caller) -> ChangeRequest:
    """Keep a submission, of whatever kind, with who asks for it and by which request.

    Raises:
        Problem: ``not_permitted``, ``invalid_request``, or a 409: ``token_already_submitted``, ``cvm_busy``,
            ``commit_started``.
    """
    try:
        by_caller = replace(
            asked,
            submitted_by=caller.holder.key_id,
            api_request_id=caller.request_id,
            traceparent=traceparent(),
        )
        return requests.submit(caller.database, by_caller, caller.parts.clock.now(), caller.actor)
    except requests.NotAllowedHere as error:
        part = InvalidPart(pointer=f"#/{error.member}", detail="is not permitted in this workspace")
        detail = f"The workspace does not permit this {error.member}: leave it out, or ask its operator."
        raise Problem(NOT_PERMITTED, detail, errors=[part]) from None
    except requests.TokenAlreadySubmitted as error:
        raise token_known(error) from None
    except requests.NeverInTime:
        raise invalid("#/not_before", "is not before the deadline: the change request would expire first") from None
    except requests.CvmHeld as error:
        raise _cvm_held(error, caller) from None


def _cvm_held(error: requests.CvmHeld, caller: Caller) -> Problem:
    """The problem of a CVM whose live change request is in the way."""
    holder = RequestRef(id=error.holder, url=caller.show.url(error.holder))
    if error.commits:
        detail = f"The commit of change request {error.holder} has started: it is too late to take its place."
        return Problem(COMMIT_STARTED, detail, change_request=holder)
    detail = f"Change request {error.holder} of this CVM is live. {CVM_BUSY.remedy}"
    return Problem(CVM_BUSY, detail, change_request=holder)


def token_known(error: requests.TokenAlreadySubmitted) -> Problem:
    """The problem of a token that belongs to a change request."""
    holder = f"change request {error.holder}" if error.holder else "another change request"
    detail = f"The commit token belongs to {holder}: follow that one, or prepare again."
    return Problem(TOKEN_ALREADY_SUBMITTED, detail)
