"""The load: change requests over the API of any deployment, whatever happens to the answers."""

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import httpx

from sandbox.polling import wait_for

ENDED: Final = frozenset({"completed", "rejected", "expired", "superseded", "cancelled", "failed"})
_PAUSE_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 300
_PAGE: Final = 100
_LATER: Final = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Driver:
    """A client that never gives up: what was not answered is asked again under the same ``Idempotency-Key``.

    Attributes:
        submitted: id of each request, by its CVM and compose file.
        repeated: how many calls had to be made again.
        refused: answers that say no for good.
    """

    base_url: str
    api_key: str
    submitted: dict[tuple[str, str], str] = field(default_factory=dict)
    repeated: int = 0
    refused: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, cvm: str, compose_file: str) -> str | None:
        """Ask for a change; its id, ``None`` when it was refused."""
        body = {"cvm_id": cvm, "patch": {"docker_compose_file": compose_file}}
        answer = self._insist("POST", "/v1/change-requests", body)
        if answer.status_code != 202:
            with self._lock:
                self.refused.append(f"{answer.status_code}: {answer.text[:200]}")
            return None
        request_id = str(answer.json()["id"])
        with self._lock:
            self.submitted[cvm, compose_file] = request_id
        return request_id

    def cancel(self, request_id: str) -> int:
        """Ask for the end of one; the status that was answered (409: too late)."""
        return self._insist("POST", f"/v1/change-requests/{request_id}/cancel", None).status_code

    def states(self) -> dict[str, str]:
        """State of each submitted request."""
        wanted = set(self.submitted.values())
        found: dict[str, str] = {}
        cursor: str | None = None
        while True:
            query = f"?limit={_PAGE}" + (f"&cursor={cursor}" if cursor else "")
            page = self._insist("GET", f"/v1/change-requests{query}", None).json()
            found |= {one["id"]: one["state"] for one in page["items"] if one["id"] in wanted}
            cursor = page.get("next_cursor")
            if not cursor:
                return found

    def wait_for_the_ends(self, seconds: float) -> Counter[str]:
        """How many are in each state, once all ended or after so many seconds."""

        def ended() -> Counter[str]:
            states = self.states()
            live = Counter(states.values())
            return live if set(states) == set(self.submitted.values()) and set(live) <= ENDED else Counter()

        return wait_for(ended, seconds, every=1.0) or Counter(self.states().values())

    def _insist(self, method: str, path: str, body: Any) -> httpx.Response:
        """Call until there is an answer that means something.

        Raises:
            httpx.HTTPError: there was none for minutes.
        """
        headers = {"Authorization": f"Bearer {self.api_key}"}
        if method == "POST":
            headers |= {"Idempotency-Key": str(uuid4()), "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)

        def once() -> httpx.Response | None:
            try:
                answer = httpx.request(
                    method, f"{self.base_url}{path}", headers=headers, content=content, timeout=10
                )  # a connection each: none is left over from before a fault
                if answer.status_code not in _LATER and _is_whole(answer) and not _is_at_work(answer):
                    return answer
            except httpx.HTTPError as error:
                faults.append(error)
            self.repeated += 1
            return None

        faults: list[httpx.HTTPError] = []
        answer = wait_for(once, _PATIENCE_SECONDS, every=_PAUSE_SECONDS)
        if answer is None:
            raise httpx.HTTPError(f"{method} {path}: no answer that means something") from (faults or [None])[-1]
        return answer


def _is_at_work(answer: httpx.Response) -> bool:
    """Whether the first call under this key is not answered yet."""
    return answer.status_code == 409 and str(answer.json().get("type", "")).endswith("idempotency_in_progress")


def _is_whole(answer: httpx.Response) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True
