"""Reading answers: a body into a model, or a refusal into the error tree. Nothing here trusts what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from http.client import responses
from typing import TYPE_CHECKING, Final, TypeVar

import pydantic
import pydantic_core

from service.phala import errors
from service.phala.errors import ApiError, BadResponse, ErrorDetail, ErrorLink, ValidationIssue

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")
M = TypeVar("M", bound=pydantic.BaseModel)

_MAX_MESSAGE: Final = 2000
#: Shorter texts are no secrets, and blanking them would spoil the message.
_MIN_SECRET: Final = 8
_RETRYABLE: Final = frozenset({408, 425, 429})
#: A 503 says that the request was not worked on; any other 5xx to a write leaves that open.
_NOT_WORKED_ON: Final = 503
_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    401: errors.AuthError,
    403: errors.AuthError,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.ValidationError,
    465: errors.HashRegistrationRequired,
    466: errors.HashInvalidOrExpired,
    467: errors.TxVerificationFailed,
    468: errors.HashNotAllowed,
}


@dataclass(frozen=True)
class Answer:
    """A whole answer and the call it belongs to.

    Attributes:
        call: method and path, for messages; never the query.
        write: the call changes something at the server.
        secrets: texts of the call that no message may repeat.
    """

    call: str
    write: bool
    secrets: Sequence[str] = field(repr=False)
    status: int
    media_type: str
    body: bytes = field(repr=False)
    request_id: str | None
    retry_after: float | None

    @property
    def success(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the definition of 2xx

    @property
    def outcome_unknown(self) -> bool:
        """If this answer is of no use, its call may have taken effect nevertheless."""
        return self.write and (self.success or (self.status >= 500 and self.status != _NOT_WORKED_ON))  # noqa: PLR2004

    def json(self) -> object:
        """The body as JSON, whatever the content type says.

        Raises:
            BadResponse: empty, or no JSON.
        """
        if not self.body.strip():
            raise self.bad("an empty body where JSON was promised")
        try:
            return pydantic_core.from_json(self.body)
        except ValueError:
            kind = self.media_type or "unnamed content"
            raise self.bad(f"{len(self.body)} bytes of {kind} that are no JSON", transient=True) from None

    def model(self, shape: type[T]) -> T:
        """The JSON body as ``shape``: a model, or a type made of models.

        Raises:
            BadResponse: no JSON, or JSON of another shape.
        """
        return self.read(self.json(), shape)

    def read(self, value: object, shape: type[T]) -> T:
        """A part of the answer as ``shape``. Raises `BadResponse` as `model` does."""
        try:
            return pydantic.TypeAdapter(shape).validate_python(value)
        except pydantic.ValidationError as exc:
            raise self.bad(f"JSON of another shape than promised ({_faults(exc)})") from None

    def text(self) -> str:
        """The body as text, taken out of a JSON string if it came as one.

        Raises:
            BadResponse: the body is not UTF-8, or JSON of another type than a string (null reads as empty text).
        """
        if self.media_type == "application/json":
            value = self.json() if self.body.strip() else None
            if value is not None and not isinstance(value, str):
                raise self.bad("JSON of another type than the promised text")
            return value or ""
        if self.media_type == "text/html":
            raise self.bad("an HTML page where text was promised", transient=True)
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            raise self.bad("text that is not UTF-8") from None

    def bad(self, what: str, *, transient: bool = False) -> BadResponse:
        """The error for an answer that cannot be read; ``transient`` if a proxy may have made it."""
        return BadResponse(
            self.redact(f"{self.call} answered {self.status} with {what}"),
            status=self.status,
            request_id=self.request_id,
            retryable=transient,
            outcome_unknown=self.outcome_unknown,
        )

    def redact(self, text: str) -> str:
        """The text without this call's secrets, cut to a length fit for a message."""
        for secret in self.secrets:
            if len(secret) >= _MIN_SECRET:
                text = text.replace(secret, "[secret]")
        return text[:_MAX_MESSAGE]

    def error(self) -> errors.PhalaError:
        """The error that a non-2xx answer means, with all facts it carries."""
        if not 400 <= self.status < 600:  # noqa: PLR2004 - client and server errors
            return self.bad("a status that is neither success nor error (redirects are not followed)")
        facts = self._error_body()
        detail = facts.get("detail", facts if "error_code" in facts else None)
        inner = detail if isinstance(detail, dict) else {}
        code = inner["error_code"] if isinstance(inner.get("error_code"), str) else None
        kind = _BY_STATUS.get(self.status) or (errors.ServerError if self.status >= 500 else errors.RequestRefused)  # noqa: PLR2004
        request_id = facts.get("request_id")
        retryable = True if self.status in _RETRYABLE or (self.status == 409 and code is None) else None  # noqa: PLR2004
        issues = _issues(detail, self) if kind is errors.ValidationError else ()
        error = kind(
            self._message(detail, issues),
            status=self.status,
            code=code,
            request_id=request_id if isinstance(request_id, str) else self.request_id,
            retryable=retryable,
            outcome_unknown=self.outcome_unknown,
            details=_details(inner.get("details"), self),
            suggestions=tuple(self.redact(s) for s in _items(inner.get("suggestions")) if isinstance(s, str)),
            links=_links(inner.get("links"), self),
            retry_after=self.retry_after,
        )
        if isinstance(error, errors.ValidationError):
            error.issues = issues
        return error

    def _error_body(self) -> dict[str, object]:
        try:
            value = pydantic_core.from_json(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _message(self, detail: object, issues: tuple[ValidationIssue, ...]) -> str:
        if len(issues) == 1:
            return f"Validation failed: {issues[0].message}"
        if issues:
            return f"Validation failed ({len(issues)} issues)"
        text = detail.get("message") if isinstance(detail, dict) else detail
        if isinstance(text, str) and text:
            return self.redact(text)
        return self.redact(f"{self.call} answered {self.status} {responses.get(self.status, '')}".rstrip())


def model_from_details(error: ApiError, shape: type[M]) -> M:
    """The facts of a structured error as a model: of a field given twice the last one counts.

    Raises:
        ApiError: the error itself, if it does not even name a compose hash and an app.
        BadResponse: the facts are of another shape.
    """
    facts = {detail.field: detail.value for detail in error.details if detail.value is not None}
    if not (facts.get("compose_hash") and facts.get("app_id")):
        raise error
    try:
        return shape.model_validate({**facts, "message": error.message})
    except pydantic.ValidationError as exc:
        raise BadResponse(
            f"a {error.status} answer with details of another shape than promised ({_faults(exc)})",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
        ) from None


def _faults(exc: pydantic.ValidationError) -> str:
    # the input itself stays out: it may hold a commit token
    faults = exc.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['type']}" for fault in faults[:3])


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _details(value: object, answer: Answer) -> tuple[ErrorDetail, ...]:
    found = []
    for item in _items(value):
        if isinstance(item, dict) and isinstance(item.get("field"), str):
            message = item.get("message")
            found.append(
                ErrorDetail(
                    field=item["field"],
                    value=errors.secret_value(item["field"], item.get("value")),
                    message=answer.redact(message) if isinstance(message, str) else None,
                )
            )
    return tuple(found)


def _links(value: object, answer: Answer) -> tuple[ErrorLink, ...]:
    return tuple(
        ErrorLink(answer.redact(item["label"]), answer.redact(item["url"]))
        for item in _items(value)
        if isinstance(item, dict) and isinstance(item.get("label"), str) and isinstance(item.get("url"), str)
    )


def _issues(value: object, answer: Answer) -> tuple[ValidationIssue, ...]:
    return tuple(_issue(item, answer) for item in _items(value) if isinstance(item, dict))


def _issue(item: dict[str, object], answer: Answer) -> ValidationIssue:
    kind = str(item.get("type", ""))
    where = [str(part) for part in _items(item.get("loc")) if part not in ("body", "query", "path", "header")]
    field = ".".join(where) or ("required field" if kind == "missing" else kind)
    return ValidationIssue(answer.redact(field), answer.redact(str(item.get("msg", ""))), answer.redact(kind))
