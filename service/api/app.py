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
from service.api.auth import ApiKeys
from service.api.description import DESCRIPTION, KEYED, OPEN, DescribedApi
from service.api.middleware import BodyLimit, RequestIds
from service.api.routers import chains, change_requests, events, hooks, probes, webhook_endpoints
from service.api.waiting import MOST_WAITING, WaitingRoom
from service.store.changes import StateChanges
from service.store.health import UNAVAILABLE
from service.wiring import ApiParts

_THREADS: Final = 40
"""Threads that serve requests which do not wait."""


def create_app(parts: ApiParts) -> FastAPI:
    """The API over its parts.

    Raises:
        ValueError: the API keys cannot be used, see ``ApiKeys``.
    """
    app = DescribedApi(
        title="Countersign",
        version="1",
        description=DESCRIPTION,
        redirect_slashes=False,
        redoc_url=None,
        lifespan=_lifespan,
        middleware=[Middleware(RequestIds), Middleware(BodyLimit)],
    )
    app.state.parts = parts
    app.state.api_keys = ApiKeys(parts.api_keys)
    app.state.workspace_ids = {}  # by slug, as they are met; a workspace keeps its id
    app.state.waiting = WaitingRoom(StateChanges(parts.database))
    app.add_exception_handler(HTTPException, handlers.on_http_exception)
    app.add_exception_handler(RequestValidationError, handlers.on_validation_error)
    for fault in UNAVAILABLE:
        app.add_exception_handler(fault, handlers.on_unavailable)
    app.include_router(change_requests.router, responses=KEYED)
    app.include_router(webhook_endpoints.router, responses=KEYED)
    app.include_router(events.router, responses=KEYED)
    app.include_router(hooks.router)
    app.include_router(chains.router, responses=KEYED)
    app.include_router(probes.router, responses=OPEN)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS + MOST_WAITING
    with app.state.waiting.changes:
        yield
