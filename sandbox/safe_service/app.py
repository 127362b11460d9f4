"""The ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from sandbox.safe_service import clock, control_routes, errors, routes
from sandbox.safe_service.chain_view import ChainView
from sandbox.safe_service.database import Database
from sandbox.safe_service.indexer import Indexer
from sandbox.safe_service.misbehaviour import Faults, FrontDoor, Ledger
from sandbox.safe_service.service import Service


def create_app(database_path: Path, rpc_url: str, *, now: clock.Clock = clock.system_clock) -> FastAPI:
    """A Safe Transaction Service for one chain.

    Args:
        database_path: SQLite file; made if it does not exist, continued if it does.
        rpc_url: JSON-RPC address of the chain.
        now: the service's time, in UTC.

    Returns:
        The application: the API under `/api/v1` and `/api/v2`, the controls under `/_sandbox`.
    """
    service = Service(Database(database_path), ChainView(rpc_url), now)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.database.close()
        service.chain.rpc.close()

    app = FastAPI(title="Safe Transaction Service sandbox", lifespan=lifespan, redirect_slashes=False)
    app.state.service = service
    app.state.indexer = Indexer(service)
    app.state.faults = Faults(service.database)
    app.state.ledger = Ledger(service)
    app.add_exception_handler(errors.ApiError, errors.answer_api_error)
    app.add_exception_handler(RequestValidationError, errors.answer_not_found)  # a version that does not exist
    app.add_exception_handler(httpx.HTTPError, errors.answer_node_gone)
    app.add_exception_handler(404, errors.answer_not_found)
    app.add_exception_handler(405, errors.answer_not_allowed)
    app.add_middleware(FrontDoor, faults=app.state.faults, ledger=app.state.ledger)
    app.include_router(routes.router)
    app.include_router(control_routes.router)
    return app
