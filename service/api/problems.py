"""Every error the API can answer: one table, one exception. RFC 9457 ``application/problem+json``.

``docs/errors.md`` is written from this table (``service.api.problem_pages``), and a test holds the two together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
_MOST_ERRORS: Final = 20
LONGEST_PART: Final = 200
"""Of a name that was sent, in an error."""
_LONGEST_DETAIL: Final = 500


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem.

    Attributes:
        slug: stable; ``type`` is ``/problems/<slug>``.
        meaning: what went wrong, for the page.
        remedy: what the caller does about it, for the page.
    """

    slug: str
    status: int
    title: str
    meaning: str
    remedy: str

    @property
    def uri(self) -> str:
        """Value of ``type``, relative to the API."""
        return f"/problems/{self.slug}"


MALFORMED_JSON: Final = ProblemType(
    "malformed_json",
    400,
    "The body is not JSON",
    "The request body could not be read as JSON: a syntax error, text that is not UTF-8, a lone surrogate, "
    "a number out of range, or more than 200 levels of nesting.",
    "Correct the body; `detail` says where reading stopped.",
)
UNAUTHORIZED: Final = ProblemType(
    "unauthorized",
    401,
    "No valid API key",
    "The request carries no API key, or one that is not known, was revoked, or has expired.",
    "Send `Authorization: Bearer <API key>` with a key of your workspace. A key is `csk_` and 49 letters and digits.",
)
INSUFFICIENT_SCOPE: Final = ProblemType(
    "insufficient_scope",
    403,
    "The API key may not do this",
    "The scope of the API key is too small: each of `read`, `submit`, `manage`, `admin` includes those before it. "
    "`detail` and the `WWW-Authenticate` header name the scope that is needed.",
    "Use a key of that scope; a key of scope `manage`, or the operator, makes one.",
)
SIGNATURE_REFUSED: Final = ProblemType(
    "signature_refused",
    401,
    "The webhook is not signed as it should be",
    "The request is not signed by a webhook secret of this workspace, or its timestamp is more than five minutes away.",
    "Give the secret that Phala Cloud shows as one of `phala_webhook_secrets`: in the workspace file, or with "
    "`PATCH /v1/workspace`.",
)
NOT_PERMITTED: Final = ProblemType(
    "not_permitted",
    403,
    "The workspace does not permit this",
    "The request asks for something that the workspace's policy does not allow, such as `allow_without_approval`, or "
    "`commit_policy: auto` where the workspace holds commits, or to cancel what another key submitted.",
    "Leave it out, use another key, or have the policy changed: `PATCH /v1/workspace` with a key of scope `admin`.",
)
WORKSPACE_BLOCKED: Final = ProblemType(
    "workspace_blocked",
    403,
    "The operator blocked the workspace",
    "The operator of the service holds the work of this workspace. What there is can be read and cancelled; nothing "
    "new is taken, and nothing is prepared, proposed or committed.",
    "`detail` has the operator's words: ask them.",
)
NOT_FOUND: Final = ProblemType(
    "not_found",
    404,
    "Not found",
    "There is no such route, or no such object in the workspace of your API key. Objects of other workspaces do not "
    "exist for you.",
    "Check the path and the id, and that the API key belongs to the right workspace.",
)
METHOD_NOT_ALLOWED: Final = ProblemType(
    "method_not_allowed",
    405,
    "Method not allowed",
    "The route exists, but not for this method.",
    "Use one of the methods in the `Allow` header.",
)
TOKEN_ALREADY_SUBMITTED: Final = ProblemType(
    "token_already_submitted",
    409,
    "The commit token was submitted before",
    "A prepared update can be submitted once: its commit token already belongs to a change request.",
    "Follow the change request that `detail` names, or prepare again and submit the new output.",
)
CVM_BUSY: Final = ProblemType(
    "cvm_busy",
    409,
    "The CVM has a live change request",
    "Another change request of this CVM is under way, and a CVM has one at a time. `change_request` names it.",
    "Wait for it or cancel it, or submit with `on_conflict: supersede` to take its place.",
)
NOTHING_TO_RETRY: Final = ProblemType(
    "nothing_to_retry",
    409,
    "There is nothing to try again",
    "Only a change request that ended without being completed can be tried again.",
    "Follow it to its end; for another change submit a change request of its own.",
)
PREPARE_NEEDED: Final = ProblemType(
    "prepare_needed",
    409,
    "It must be prepared again",
    "The change request was prepared elsewhere and the service does not know its patch. Its commit token is spent or "
    "dead, so it cannot be tried again as it was.",
    "Prepare the same change again and submit what that prints; a hash that was approved needs no new signatures.",
)
PREPARED_DIFFERS: Final = ProblemType(
    "prepared_differs",
    409,
    "The prepared update is another one",
    "A fresh token is taken only for the very update that the change request is about: same CVM, compose hash, app, "
    "device and chain.",
    "Prepare the same change again and send that; submit a change request of its own for another update.",
)
NOTHING_PREPARED: Final = ProblemType(
    "nothing_prepared",
    409,
    "Nothing is prepared yet",
    "The change request has not been prepared yet, so there is no token to renew.",
    "Wait until its state is `prepared`.",
)
COMMIT_STARTED: Final = ProblemType(
    "commit_started",
    409,
    "The commit has started",
    "A change request cannot be cancelled, superseded, refreshed or released any more once its commit is on the way to "
    "Phala Cloud.",
    "Follow the change request to its end; to go back, submit a new one with the earlier configuration.",
)
ALREADY_ENDED: Final = ProblemType(
    "already_ended",
    409,
    "The change request has ended",
    "The change request is in a terminal state.",
    "Nothing is left to do with it; retry it or submit a new change request if something is still wanted.",
)
WEBHOOK_ENDPOINT_EXISTS: Final = ProblemType(
    "webhook_endpoint_exists",
    409,
    "The URL has an endpoint already",
    "Another webhook endpoint of the workspace has this URL.",
    "Change that one, or use a URL that differs, in its query for example.",
)
TOO_MANY_WEBHOOK_ENDPOINTS: Final = ProblemType(
    "too_many_webhook_endpoints",
    409,
    "Too many webhook endpoints",
    "A workspace has at most 50 webhook endpoints.",
    "Delete one that is not needed any more.",
)
WEBHOOK_ENDPOINT_DELETED: Final = ProblemType(
    "webhook_endpoint_deleted",
    409,
    "The webhook endpoint was deleted",
    "The webhook endpoint was deleted; only its history can be read.",
    "Create a new one.",
)
WEBHOOK_ENDPOINT_DISABLED: Final = ProblemType(
    "webhook_endpoint_disabled",
    409,
    "The webhook endpoint is disabled",
    "The service disabled the webhook endpoint; its `disabled` says why.",
    "Repair the receiver, resume the endpoint with `paused: false`, then ask again.",
)
WEBHOOK_ENDPOINT_OF_FILE: Final = ProblemType(
    "webhook_endpoint_of_file",
    409,
    "The webhook endpoint belongs to the workspace file",
    "The operator's workspace file says what this webhook endpoint is; over the API it can be paused and resumed only.",
    "Have the operator change the file, or create an endpoint of your own.",
)
API_KEY_ENDED: Final = ProblemType(
    "api_key_ended",
    409,
    "The API key has ended",
    "A key that was revoked or has expired cannot be rotated.",
    "Create a new key.",
)
TOO_MANY_API_KEYS: Final = ProblemType(
    "too_many_api_keys",
    409,
    "The workspace has too many API keys",
    "A workspace can have 100 keys that work at the same time.",
    "Revoke keys that nobody uses: `last_used_at` tells which.",
)
TOO_MANY_REGISTERED: Final = ProblemType(
    "too_many_registered",
    409,
    "Too many Safes or apps are registered",
    "A workspace has at most 100 Safes, and at most 100 external apps.",
    "Remove one that is not needed any more.",
)
IDEMPOTENCY_IN_PROGRESS: Final = ProblemType(
    "idempotency_in_progress",
    409,
    "The first request is still in progress",
    "Another request with the same `Idempotency-Key` has not been answered yet.",
    "Try again with the same key after `Retry-After` seconds.",
)
CURSOR_EXPIRED: Final = ProblemType(
    "cursor_expired",
    410,
    "Events behind the cursor were deleted",
    "The cursor is older than the workspace keeps events: some that came after it are gone.",
    "Read the feed anew without a cursor, and look at the change requests that matter to you.",
)
BODY_TOO_LARGE: Final = ProblemType(
    "body_too_large",
    413,
    "The body is too large",
    "The request body has more than 1 MiB (1048576 bytes).",
    "Send less: Phala Cloud takes at most 204800 bytes of `docker_compose_file` and `pre_launch_script` together.",
)
UNSUPPORTED_MEDIA_TYPE: Final = ProblemType(
    "unsupported_media_type",
    415,
    "The body must be JSON",
    "The request has a body that is not declared as JSON.",
    "Send `Content-Type: application/json`.",
)
INVALID_REQUEST: Final = ProblemType(
    "invalid_request",
    422,
    "The request is not valid",
    "The request is well-formed, but a member or parameter is missing, unknown, of the wrong type or out of range. "
    "Nothing was stored.",
    "Correct what `errors` lists: `pointer` is a JSON pointer into the body, `parameter` names a query parameter or a "
    "header.",
)
IDEMPOTENCY_MISMATCH: Final = ProblemType(
    "idempotency_mismatch",
    422,
    "The idempotency key belongs to another request",
    "The `Idempotency-Key` was used in this workspace for a request with another path or another body. Nothing was "
    "stored.",
    "Take a new key for each new request, and repeat a request unchanged.",
)
CHAIN_NOT_CONFIGURED: Final = ProblemType(
    "chain_not_configured",
    422,
    "The chain is not configured",
    "The prepared update, the Safe or the app belongs to a chain that this service does not watch.",
    "Check that it is the chain you mean; `GET /v1/chains` lists those that are watched, and the operator adds chains "
    "with `COUNTERSIGN_CHAINS`.",
)
RATE_LIMITED: Final = ProblemType(
    "rate_limited",
    429,
    "The API key makes too many requests",
    "The key used up its requests; they come back evenly. The `RateLimit` headers of every answer tell how many are "
    "left.",
    "Try again after `Retry-After` seconds. Use `wait` instead of asking again and again.",
)
TOO_MANY_AT_ONCE: Final = ProblemType(
    "too_many_at_once",
    429,
    "The API key makes too many requests at once",
    "The key has as many requests running as it may; those with `wait` are counted apart.",
    "Wait for answers before sending more, or try again after `Retry-After` seconds.",
)
TOO_MANY_WAITING: Final = ProblemType(
    "too_many_waiting",
    429,
    "Too many requests wait",
    "More clients than this process can hold use `wait` at the same time.",
    "Try again after `Retry-After` seconds, or poll without `wait`.",
)
INTERNAL_ERROR: Final = ProblemType(
    "internal_error",
    500,
    "Internal error",
    "The service failed on this request. Its log has the cause under the request id.",
    "Try again later; give the operator the `request_id`.",
)
UNAVAILABLE: Final = ProblemType(
    "unavailable",
    503,
    "The database does not answer",
    "The service cannot reach its database at the moment. A write may or may not have been stored.",
    "Try again after `Retry-After` seconds, a submission with the same `Idempotency-Key`; without one, list the change "
    "requests of the CVM before you repeat it.",
)
NOT_MIGRATED: Final = ProblemType(
    "not_migrated",
    503,
    "The database is not migrated",
    "The database answers, but its tables are those of an earlier version of the service.",
    "The operator runs `countersign migrate`.",
)
NOT_READY: Final = ProblemType(
    "not_ready",
    503,
    "A part of the service stands still",
    "The API answers, but a part behind it gave no sign of life for too long; `detail` names each.",
    "The operator looks at the named parts; requests are stored and go on when the part is back.",
)
PROBLEMS: Final[tuple[ProblemType, ...]] = (
    MALFORMED_JSON,
    UNAUTHORIZED,
    INSUFFICIENT_SCOPE,
    SIGNATURE_REFUSED,
    NOT_PERMITTED,
    WORKSPACE_BLOCKED,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    TOKEN_ALREADY_SUBMITTED,
    CVM_BUSY,
    NOTHING_TO_RETRY,
    PREPARE_NEEDED,
    PREPARED_DIFFERS,
    NOTHING_PREPARED,
    COMMIT_STARTED,
    ALREADY_ENDED,
    WEBHOOK_ENDPOINT_EXISTS,
    TOO_MANY_WEBHOOK_ENDPOINTS,
    WEBHOOK_ENDPOINT_DELETED,
    WEBHOOK_ENDPOINT_DISABLED,
    WEBHOOK_ENDPOINT_OF_FILE,
    API_KEY_ENDED,
    TOO_MANY_API_KEYS,
    TOO_MANY_REGISTERED,
    IDEMPOTENCY_IN_PROGRESS,
    CURSOR_EXPIRED,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    INVALID_REQUEST,
    IDEMPOTENCY_MISMATCH,
    CHAIN_NOT_CONFIGURED,
    RATE_LIMITED,
    TOO_MANY_AT_ONCE,
    TOO_MANY_WAITING,
    INTERNAL_ERROR,
    UNAVAILABLE,
    NOT_MIGRATED,
    NOT_READY,
)


class InvalidPart(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(extra="forbid")

    pointer: str | None = Field(default=None, description="JSON pointer into the body, as a URI fragment")
    parameter: str | None = Field(default=None, description="name of the query parameter or header")
    detail: str


class RequestRef(BaseModel):
    """A change request that a problem is about."""

    model_config = ConfigDict(extra="forbid")

    id: str
    url: str


class ProblemBody(BaseModel):
    """What every error answer holds, as RFC 9457 describes it."""

    model_config = ConfigDict(extra="forbid", title="Problem")

    type: str = Field(description="`/problems/<slug>`, stable, relative to the API")
    title: str
    status: int
    detail: str = Field(description="What happened here, and what to do about it")
    request_id: str = Field(description="The answer's `X-Request-Id`; the service's log has it too")
    errors: list[InvalidPart] | None = None
    change_request: RequestRef | None = Field(default=None, description="The one that is in the way")


class Problem(HTTPException):
    """Raised anywhere below a route; answered as ``application/problem+json``."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        errors: Sequence[InvalidPart] = (),
        headers: Mapping[str, str] | None = None,
        change_request: RequestRef | None = None,
    ) -> None:
        super().__init__(kind.status, detail, headers)
        self.kind = kind
        self.errors = errors
        self.change_request = change_request


def invalid(pointer: str, detail: str) -> Problem:
    """422 about one member of the body; ``pointer`` such as ``#/cvm_id``."""
    return Problem(INVALID_REQUEST, f"{pointer}: {detail}", errors=[InvalidPart(pointer=pointer, detail=detail)])


def internal_error() -> Problem:
    """500: everything else failed."""
    return Problem(INTERNAL_ERROR, "Try again later; give the operator the request_id.")


def answer(problem: Problem, request_id: str) -> Response:
    """The response to a problem."""
    body = ProblemBody(
        type=problem.kind.uri,
        title=problem.kind.title,
        status=problem.kind.status,
        detail=problem.detail[:_LONGEST_DETAIL],
        request_id=request_id,
        errors=list(problem.errors[:_MOST_ERRORS]) or None,
        change_request=problem.change_request,
    )
    content = body.model_dump_json(exclude_none=True)
    return Response(content, problem.kind.status, problem.headers, media_type=MEDIA_TYPE)
