"""The REST API over HTTP.

Reads are repeated, and so are writes: each carries an ``Idempotency-Key``, by which the API does it once and answers a
repeat as it answered the first.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import quote

import httpx

from service.client.submission import new_key
from service.client.text import Json, problem

PATIENCE: Final = 30.0
"""Seconds for which an exchange is tried again: a restart of the service takes less."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_LONGEST_RETRY_AFTER: Final = 30.0
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_PASSING_FOR_WRITES: Final = _PASSING - {500}
"""The API keeps a 500 as the answer to its key: to repeat that gets the same again."""
_IN_PROGRESS: Final = "/idempotency_in_progress"
_TIMEOUT: Final = httpx.Timeout(20, connect=10)
_BESIDE_WAIT: Final = 20
"""Seconds that an answer may take beyond those the server was asked to wait."""


_FREEZE: Final = "/workspace/freeze"


class ApiError(Exception):
    """The API refused, answered nonsense, or could not be reached; the text is one line for people."""


class AnswerLost(ApiError):
    """A write was sent and no answer came: it may have been done."""


class _Passing(Exception):
    """An exchange that may go better a little later.

    Args:
        final: what is raised once patience is over.
        pause: seconds that the server wishes before the next attempt.
    """

    def __init__(self, final: ApiError, pause: float = 0.0) -> None:
        super().__init__(str(final))
        self.final = final
        self.pause = pause


class Api:
    """The routes that the commands use.

    Args:
        url: where the API is, without ``/v1``.
        key: API key of the workspace.
        patience: seconds for which an exchange is tried again.
        notice: is told once per exchange that it is tried again.
        sleep: passes the seconds between two attempts.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        notice: Callable[[str], None],
        patience: float = PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, application/problem+json"}
        self._http = httpx.Client(base_url=url.rstrip("/") + "/v1", headers=headers, timeout=_TIMEOUT)
        self._patience = patience
        self._notice = notice
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def submit(self, body: Json, idempotency_key: str) -> Json:
        """File a change request, once for each key."""
        return self._post("/change-requests", body, idempotency_key)

    def act(self, request_id: str, verb: str, body: Json | None = None, *, idempotency_key: str | None = None) -> Json:
        """POST to a route of one change request, such as ``cancel``."""
        return self._post(f"{_path(request_id)}/{verb}", body, idempotency_key or new_key())

    def freeze(self, reason: str) -> Json:
        """Hold all commits of the workspace."""
        return self._post(_FREEZE, {"reason": reason}, new_key())

    def unfreeze(self) -> Json:
        """Let them go on."""
        return self._write("DELETE", _FREEZE, None, {})

    def read(self, request_id: str) -> Json:
        """A change request as it is now."""
        return self._get(_path(request_id), {})

    def read_when_changed(self, request_id: str, state: str, seconds: int, *, patience: float) -> Json:
        """A change request as soon as its state is not ``state``, or after some seconds."""
        parameters = {"wait": str(seconds), "state": state}
        return self._get(_path(request_id), parameters, seconds + _BESIDE_WAIT, patience)

    def page(self, filters: Mapping[str, str]) -> Json:
        """One page of change requests."""
        return self._get("/change-requests", filters)

    def events(self, request_id: str, after: int) -> Json:
        """Events of a change request after a sequence number."""
        return self._get(f"{_path(request_id)}/events", {"after": str(after)})

    def _get(
        self, path: str, parameters: Mapping[str, str], timeout: float | None = None, patience: float | None = None
    ) -> Json:
        def attempt() -> Json:
            try:
                answer = self._http.get(path, params=parameters, timeout=timeout or _TIMEOUT)
            except httpx.RequestError as error:
                raise _Passing(ApiError(f"the API cannot be reached: {_what(error)}")) from error
            if answer.status_code in _PASSING:
                raise _Passing(ApiError(_refusal(answer)), _retry_after(answer))
            return _body(answer)

        return self._repeated(attempt, self._patience if patience is None else patience)

    def _post(self, path: str, body: Json | None, key: str) -> Json:
        return self._write("POST", path, body, {"Idempotency-Key": key})

    def _write(self, method: str, path: str, body: Json | None, headers: Mapping[str, str]) -> Json:
        """Send what may be sent again: under its key, or because twice is as good as once."""
        sent = False

        def fault(words: str) -> ApiError:
            return AnswerLost(words) if sent else ApiError(words)

        def attempt() -> Json:
            nonlocal sent
            try:
                answer = self._http.request(method, path, json=body, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                nothing = "" if sent else ", nothing was sent"
                raise _Passing(fault(f"the API cannot be reached{nothing}: {_what(error)}")) from error
            except httpx.RequestError as error:
                sent = True
                raise _Passing(fault(f"the answer got lost: {_what(error)}")) from error
            sent = sent or answer.status_code != httpx.codes.TOO_MANY_REQUESTS
            if answer.status_code in _PASSING_FOR_WRITES or _still_in_progress(answer):
                raise _Passing(fault(_refusal(answer)), _retry_after(answer))
            if answer.is_server_error:
                raise fault(_refusal(answer))
            return _body(answer)

        return self._repeated(attempt, self._patience)

    def _repeated(self, attempt: Callable[[], Json], patience: float) -> Json:
        gives_up_at = time.monotonic() + patience
        noticed = False
        for pause in _pauses():
            try:
                return attempt()
            except _Passing as fault:
                seconds = max(pause, fault.pause)
                if time.monotonic() + seconds > gives_up_at:
                    raise fault.final from fault.__cause__
                if not noticed:
                    self._notice(f"{fault.final}; trying again for {patience:.0f} seconds")
                    noticed = True
            self._sleep(seconds)
        raise AssertionError("there is always another pause")


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)


def _path(request_id: str) -> str:
    return f"/change-requests/{quote(request_id, safe='')}"


def _body(answer: httpx.Response) -> Json:
    if answer.is_redirect:
        raise ApiError(f"{answer.url.host} leads elsewhere ({answer.status_code}): correct --url (COUNTERSIGN_URL)")
    if not answer.is_success:
        raise ApiError(_refusal(answer))
    body = _json_object(answer)
    if body is None:
        raise ApiError(f"{answer.url.host} answered {answer.status_code} without a JSON object: no Countersign API?")
    return body


def _refusal(answer: httpx.Response) -> str:
    return problem(_json_object(answer) or {}, answer.status_code, answer.headers.get("X-Request-Id"))


def _json_object(answer: httpx.Response) -> Json | None:
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return None
    return cast("Json", body) if isinstance(body, dict) else None


def _still_in_progress(answer: httpx.Response) -> bool:
    """Whether the first request with this key has not been answered yet."""
    told = _json_object(answer) if answer.status_code == httpx.codes.CONFLICT else None
    return str((told or {}).get("type", "")).endswith(_IN_PROGRESS)


def _retry_after(answer: httpx.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    return min(float(value), _LONGEST_RETRY_AFTER) if value.isascii() and value.isdigit() else 0.0


def _what(error: httpx.RequestError) -> str:
    return f"{type(error).__name__} {error}".strip()
