"""The end of a story: everybody is well again and does their part, and everything must come to its end."""

from sqlalchemy import func, select

from service.domain.phala_facts import OperationStatus
from service.domain.states import State
from service.store.tables import ChangeRequest, WebhookDelivery
from tests.support.builders import DEVICE
from tests.support.model.world import World

ROUNDS = 60


def drain(world: World) -> None:
    """Heal everything, have each waiting update allowed on chain, and serve until all change requests have ended."""
    for part in (world.chain, world.queue, world.receiver, *world.cvms):
        part.heal()
        part.down = None
    world.unfreeze()
    world.chain.lag = 0
    world.receiver.status = 204
    for cvm in world.cvms:
        cvm.lags = False
        for newest in range(len(cvm.told)):
            world.hear(cvm.number, newest)
    for _ in range(ROUNDS):
        if not world.live():
            break
        _one_round(world)
    _deliver_all(world)


def _one_round(world: World) -> None:
    world.let_pass(61)
    for cvm in world.cvms:
        world.finish(cvm.number, OperationStatus.COMPLETED)
    for request_id in world.held():
        world.release(request_id)
    waiting = select(ChangeRequest.compose_hash, ChangeRequest.device_id).where(
        ChangeRequest.state == State.PROPOSED.value
    )
    with world.database.reads() as session:
        needed = {(row.compose_hash or "", row.device_id or DEVICE) for row in session.execute(waiting)}
    for compose_hash, device_id in sorted(needed):
        if not world.chain.allows(compose_hash, device_id):
            world.allow_elsewhere(compose_hash, device_id)
    world.chain.mine(empty=world.chain.depth)
    world.observe()
    world.sweep()


def _deliver_all(world: World) -> None:
    for _ in range(ROUNDS):
        with world.database.reads() as session:
            left = session.scalar(select(func.count()).where(WebhookDelivery.state == "pending"))
        if not left:
            return
        world.let_pass(90_000)
        world.deliver()
    raise AssertionError(f"{left} deliveries are still pending")
