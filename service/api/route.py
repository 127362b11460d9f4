"""Routes of ``/v1``: the caller is known before the body is read, and JSON is read strictly."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pydantic_core
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from service.api.problems import (
    INVALID_REQUEST,
    LONGEST_PART,
    MALFORMED_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    InvalidPart,
    Problem,
)


class StrictRequest(Request):
    """Reads JSON without NaN, lone surrogates, endless numbers or bottomless nesting."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The body.

        Raises:
            Problem: ``malformed_json``.
        """
        try:
            return pydantic_core.from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise Problem(MALFORMED_JSON, f"The body cannot be read as JSON: {error}") from None


class ApiRoute(APIRoute):
    """A route that needs an API key; puts the workspace's slug into ``request.state.workspace``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI's "Custom Request and APIRoute class"."""
        handle = super().get_route_handler()

        async def known_caller_first(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            keys = request.app.state.api_keys
            strict.state.workspace = keys.workspace_of(request.headers.get("authorization"))
            _refuse_repeated(request.query_params)
            if self.body_field is not None and self._has_body(request) and not _is_json(request):
                raise Problem(UNSUPPORTED_MEDIA_TYPE, "Send the body with `Content-Type: application/json`.")
            return await handle(strict)

        return known_caller_first

    def _has_body(self, request: Request) -> bool:
        required = self.body_field is not None and self.body_field.field_info.is_required()
        return required or request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _refuse_repeated(query: QueryParams) -> None:
    repeated = next(
        (name for name, times in Counter(name for name, _ in query.multi_items()).items() if times > 1), None
    )
    if repeated is not None:
        part = InvalidPart(parameter=repeated[:LONGEST_PART], detail="give it once")
        raise Problem(INVALID_REQUEST, f"{part.parameter}: {part.detail}", errors=[part])


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json"
