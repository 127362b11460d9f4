"""A client whose server is a function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from service.phala import PhalaCloud

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "phak_a_secret_key"


def json_answer(status: int, body: Any, **headers: str) -> httpx.Response:
    return httpx.Response(
        status, content=json.dumps(body).encode(), headers={"content-type": "application/json", **headers}
    )


def client_of(answer: Callable[[httpx.Request], httpx.Response] | httpx.Response, **options: Any) -> PhalaCloud:
    handler = (lambda _request: answer) if isinstance(answer, httpx.Response) else answer
    return PhalaCloud(KEY, "http://phala.test/api/v1", transport=httpx.MockTransport(handler), **options)
