"""Answers that are no success."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse


class ApiError(Exception):
    """An answer with this status and JSON body; None stands for an empty body."""

    def __init__(self, status: int, body: object = None) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


def refused(status: int, message: str) -> ApiError:
    """The shape of a refusal that concerns no single field."""
    return ApiError(status, {"nonFieldErrors": [message]})


def answer_api_error(_request: Request, error: Exception) -> Response:
    """Exception handler for `ApiError`."""
    if not isinstance(error, ApiError):
        raise TypeError(f"{type(error).__name__} is no ApiError") from error
    if error.body is None:
        return Response(status_code=error.status)
    return JSONResponse(error.body, error.status)


def answer_not_allowed(request: Request, _error: Exception) -> Response:
    """Exception handler for 405."""
    return JSONResponse({"detail": f'Method "{request.method}" not allowed.'}, 405)


def answer_not_found(_request: Request, _error: Exception) -> Response:
    """Exception handler for a path that does not exist: an HTML page, as Django's."""
    page = "<!doctype html><title>Not Found</title><h1>Not Found</h1>"
    return Response(page, 404, media_type="text/html")


def answer_node_gone(_request: Request, _error: Exception) -> Response:
    """Exception handler for a node that does not answer."""
    return JSONResponse({"detail": "Node connection error"}, 503)


def server_error_page() -> Response:
    """What Django answers when its own code fails."""
    page = "<!doctype html><title>Server Error (500)</title><h1>Server Error (500)</h1>"
    return Response(page, 500, media_type="text/html")
