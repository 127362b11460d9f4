"""The ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from service.api import handlers
from service.api.admission import Admission
from service.api.description import DESCRIPTION, OPEN, DescribedApi
from service.api.middleware import BodyLimit, RequestIds, Telling
from service.api.routers import (
    acts,
    api_keys,
    chains,
    change_requests,
    events,
    freeze,
    hooks,
    probes,
    webhook_endpoints,
    workspace,
)
from service.api.waiting import MOST_WAITING, WaitingRoom
from service.store.changes import StateChanges
from service.store.health import UNAVAILABLE
from service.wiring import ApiParts

_THREADS: Final = 40
"""Threads that serve requests which do not wait."""


def create_app(parts: ApiParts) -> FastAPI:
    """The API over its parts."""
    app = DescribedApi(
        title="Countersign",
        version="1",
        description=DESCRIPTION,
        redirect_slashes=False,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=[Middleware(RequestIds), Middleware(Telling), Middleware(BodyLimit)],
    )
    app.state.parts = parts
    app.state.admission = Admission(parts)
    app.state.waiting = WaitingRoom(StateChanges(parts.database))
    app.add_exception_handler(HTTPException, handlers.on_http_exception)
    app.add_exception_handler(RequestValidationError, handlers.on_validation_error)
    for fault in UNAVAILABLE:
        app.add_exception_handler(fault, handlers.on_unavailable)
    routers = (
        change_requests.router,
        acts.router,
        freeze.router,
        webhook_endpoints.router,
        events.router,
        api_keys.router,
        chains.router,
        workspace.router,
        hooks.router,
    )
    app.state.routes = [*app.routes, *probes.router.routes, *(route for router in routers for route in router.routes)]
    for router in routers:
        app.include_router(router)
    app.include_router(probes.router, responses=OPEN)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS + MOST_WAITING
    with app.state.waiting.changes, app.state.admission.last_uses:
        yield
