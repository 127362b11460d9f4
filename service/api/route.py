"""Routes of ``/v1``: the caller is known before the body is read, and JSON is read strictly."""

from collections import Counter
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pydantic_core
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from service.api.deps import Needs
from service.api.description import KEYED, RETRIABLE, together
from service.api.idempotent import PARAMETER, fingerprint, idempotent, key_of
from service.api.middleware import answer_headers_of
from service.api.problems import (
    INVALID_REQUEST,
    LONGEST_PART,
    MALFORMED_JSON,
    UNSUPPORTED_MEDIA_TYPE,
    InvalidPart,
    Problem,
)
from service.domain.api_keys import Scope
from service.store.api_keys import Holder
from service.store.idempotency import Attempt
from service.telemetry.context import working_for

if TYPE_CHECKING:
    from service.api.admission import Admission


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
    """A route that needs an API key of the scope that its ``Needs`` says; a POST may carry an ``Idempotency-Key``."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        """See ``fastapi.routing.APIRoute``."""
        responses = together(KEYED, options.get("responses") or {})
        if list(options.get("methods") or ()) == ["POST"]:
            endpoint = idempotent(endpoint, options.get("status_code") or HTTPStatus.OK)
            options["openapi_extra"] = {"parameters": [PARAMETER]}
            responses = together(responses, RETRIABLE)
        options["responses"] = responses
        super().__init__(path, endpoint, **options)
        if self.scope is not None:
            self.description += f"\n\nNeeds scope `{self.scope.value}`."

    @property
    def scope(self) -> Scope | None:
        """The scope that the route says it needs."""
        found = [needs.call.scope for needs in self.dependant.dependencies if isinstance(needs.call, Needs)]
        return found[0] if found else None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI's "Custom Request and APIRoute class"."""
        handle = super().get_route_handler()
        scope = self.scope or Scope.ADMIN

        async def known_caller_first(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            admission: Admission = request.app.state.admission
            authorization = request.headers.get("authorization")
            holder = await run_in_threadpool(admission.admit, authorization, scope, answer_headers_of(request))
            strict.state.holder = holder
            waits = request.query_params.get("wait", "0") != "0"
            with admission.concurrency.slot(holder.key_id, waits=waits), working_for(workspace_id=holder.workspace_id):
                _refuse_repeated(request.query_params)
                if self.body_field is not None and self._has_body(request) and not _is_json(request):
                    raise Problem(UNSUPPORTED_MEDIA_TYPE, "Send the body with `Content-Type: application/json`.")
                strict.state.attempt = await _attempt(strict, holder)
                return await handle(strict)

        return known_caller_first

    def _has_body(self, request: Request) -> bool:
        required = self.body_field is not None and self.body_field.field_info.is_required()
        return required or request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _attempt(request: Request, holder: Holder) -> Attempt | None:
    key = key_of(request.headers) if request.method == "POST" else None
    if key is None:
        return None
    target = f"{request.url.path}?{request.url.query}"
    return Attempt(holder.workspace_id, key, fingerprint(request.method, target, await request.body()))


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
