"""The answers that are not a success, in the shapes Phala Cloud documents.

465 to 468 are Phala's own statuses; no HTTP library knows a reason phrase for them. Where Phala documents a status
without its error code (400 for bad members, 404 for an app), the code here is one of its list, chosen by us.
"""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

Json = dict[str, Any]

HASH_REGISTRATION_REQUIRED = 465
HASH_INVALID_OR_EXPIRED = 466
TX_VERIFICATION_FAILED = 467
HASH_NOT_ALLOWED = 468

_LINKS = {"ERR-01-005": [{"label": "Phala Cloud documentation", "url": "https://docs.phala.com"}]}


class ApiError(Exception):
    """An answer with this status and exactly this JSON body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.body = body


def plain(status: int, text: str) -> ApiError:
    """`{"detail": text}`, as the framework behind Phala Cloud answers."""
    return ApiError(status, {"detail": text})


def structured(
    status: int,
    error_code: str,
    message: str,
    *,
    details: Sequence[Json] = (),
    suggestions: Sequence[str] = (),
) -> ApiError:
    """`{"error_code": "ERR-mm-nnn", ...}` at the top level of the body."""
    body = {
        "error_code": error_code,
        "message": message,
        "details": list(details),
        "suggestions": list(suggestions),
        "links": _LINKS.get(error_code, []),
    }
    return ApiError(status, body)


def cvm_not_found(identifier: str) -> ApiError:
    """404 for a CVM that does not exist or is hidden from the caller."""
    detail = {"field": "cvm_id", "value": identifier, "message": f"CVM {identifier} not found"}
    return structured(
        404,
        "ERR-03-001",
        "The requested CVM was not found",
        details=[detail],
        suggestions=["Check the identifier"],
    )


def app_not_found(app_id: str) -> ApiError:
    """404 for an app without a CVM visible to the caller."""
    detail = {"field": "app_id", "value": app_id, "message": f"App {app_id} not found"}
    return structured(404, "ERR-03-003", "The requested app was not found", details=[detail])


def busy() -> ApiError:
    """The bare 409 (no error code): another operation runs, a retry can help."""
    return plain(409, "Another operation in progress")


def bad_request(message: str, field: str | None = None) -> ApiError:
    """400 with a structured body."""
    details = [] if field is None else [{"field": field, "value": None, "message": message}]
    return structured(400, "ERR-01-002", message, details=details)


def compose_invalid(message: str) -> ApiError:
    """422 for a compose file that does not parse."""
    detail = {"field": "docker_compose_file", "value": None, "message": message}
    return structured(422, "ERR-01-003", "The Docker Compose file contains errors", details=[detail])


def hash_registration_required(details: Sequence[Json]) -> ApiError:
    """465; what was computed travels as field and value pairs."""
    return structured(
        HASH_REGISTRATION_REQUIRED,
        "ERR-01-005",
        "Compose hash registration required on-chain",
        details=details,
        suggestions=["Register the compose hash on-chain and retry"],
    )


def hash_invalid_or_expired() -> ApiError:
    """466: token or hash unknown, expired, superseded, spent, or bound to another compose."""
    return structured(
        HASH_INVALID_OR_EXPIRED,
        "ERR-01-006",
        "The provided compose hash is invalid or has expired",
        suggestions=["Prepare the update again"],
    )


def tx_verification_failed() -> ApiError:
    """467: the transaction does not prove the registration."""
    return structured(TX_VERIFICATION_FAILED, "ERR-01-007", "Transaction verification failed")


def hash_not_allowed() -> ApiError:
    """468: the contract says no."""
    return structured(
        HASH_NOT_ALLOWED,
        "ERR-01-008",
        "The compose hash is not allowed by the on-chain contract",
    )


def answer_api_error(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler for `ApiError`."""
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.body, status_code=error.status)
