"""Route of the chains: whether they are read, and how far."""

from dataclasses import asdict

from fastapi import APIRouter

from service.api.deps import ReadDep
from service.api.description import example
from service.api.route import ApiRoute
from service.api.schemas import CatchUp, ChainList, ChainSettingsOut, ChainStatus, ChainWatch
from service.store import chains
from service.store.chains import ChainProgress
from service.wiring import ChainLinks

router = APIRouter(prefix="/v1/chains", tags=["chains"], route_class=ApiRoute)


@router.get("", summary="List the chains", responses=example(200, "Chains", "The configured chains, by id"))
def listing(caller: ReadDep) -> ChainList:
    """Say of each configured chain how far it was read. It is the same for every workspace."""
    configured = caller.parts.chains
    with caller.database.transaction() as session:
        read = {each.chain_id: each for each in chains.progress(session, configured.keys())}
    return ChainList(
        items=[_shown(chain_id, configured[chain_id], read.get(chain_id)) for chain_id in sorted(configured)]
    )


def _shown(chain_id: int, chain: ChainLinks, progress: ChainProgress | None) -> ChainStatus:
    if progress is None:
        nothing = ChainProgress(chain_id, None, None, None, None, 0, None, None)
        return _shown(chain_id, chain, nothing)
    return ChainStatus(
        id=chain_id,
        name=chain.name,
        status=_status(progress),
        head_block=progress.head,
        final_block=progress.final,
        read_to_block=progress.read_to,
        looked_at=progress.looked_at,
        age_seconds=None if progress.age_seconds is None else round(progress.age_seconds, 1),
        failed_looks=progress.failed_looks,
        catch_up=_catch_up(progress),
        settings=None if chain.setup is None else ChainSettingsOut(**asdict(chain.setup)),
    )


def _status(progress: ChainProgress) -> ChainWatch:
    if progress.failed_looks:
        return ChainWatch.FAILING
    if progress.looked_at is None:
        return ChainWatch.NOT_READ_YET
    return ChainWatch.UP_TO_DATE if progress.gap is None else ChainWatch.CATCHING_UP


def _catch_up(progress: ChainProgress) -> CatchUp | None:
    if progress.gap is None or progress.final is None or progress.read_to is None:
        return None
    return CatchUp(blocks_total=progress.gap, blocks_left=max(0, progress.final - progress.read_to))
