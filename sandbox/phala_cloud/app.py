"""The ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI

from sandbox.phala_cloud import (
    account_routes,
    app_routes,
    commit_routes,
    control_routes,
    errors,
    faults,
    fleet_routes,
    operations,
    reads,
    updates,
    webhook_routes,
)
from sandbox.phala_cloud.deliveries import Deliverer
from sandbox.phala_cloud.loops import Loop
from sandbox.phala_cloud.streams import Streams
from sandbox.phala_cloud.world import World


def create_app(database_path: Path, *, rpc_url: str | None = None) -> FastAPI:
    """A Phala Cloud with its state at `database_path`.

    Args:
        database_path: SQLite file; made if it does not exist, continued if it does.
        rpc_url: JSON-RPC address of the chain the app contracts are on; without one, whatever needs the chain
            answers 500.

    Returns:
        The application: the API under `/api/v1`, the controls under `/_sandbox`. Its threads run while its
        lifespan does.
    """
    world = World.open(database_path, rpc_url)
    deliverer = Deliverer(world)
    streams = Streams()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        world.loops = [
            Loop("phala-operations", lambda: operations.advance(world)),
            Loop("phala-deliveries", deliverer.work),
        ]
        for loop in world.loops:
            loop.start()
        try:
            yield
        finally:
            world.close()
            deliverer.close()

    app = FastAPI(title="Phala Cloud sandbox", lifespan=lifespan)
    app.state.world = world
    app.state.streams = streams
    app.state.faults = faults.FaultStore(world.database)
    app.add_exception_handler(errors.ApiError, errors.answer_api_error)
    app.add_middleware(faults.FaultMiddleware, faults=app.state.faults)
    api = APIRouter(prefix=faults.API_PREFIX)
    # Fixed paths come before those with an identifier in the same place.
    for router in (
        fleet_routes.router,
        fleet_routes.cvm_router,
        commit_routes.router,
        reads.router,
        updates.router,
        app_routes.list_router,
        app_routes.router,
        account_routes.router,
        webhook_routes.router,
    ):
        api.include_router(router)
    app.include_router(api)
    app.include_router(control_routes.router)
    return app
