"""The client: one object, one pool of connections, all functions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Self

from service.phala.app_reads import AppReads
from service.phala.cvm_reads import CvmReads
from service.phala.kms_reads import KmsReads
from service.phala.state_watch import StateWatch
from service.phala.transport import Transport
from service.phala.two_phase import TwoPhaseUpdates
from service.phala.updates import Updates
from service.phala.webhook_reads import WebhookReads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import httpx
    from pydantic import SecretStr

_MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024


class PhalaCloud(TwoPhaseUpdates, Updates, CvmReads, StateWatch, AppReads, KmsReads, WebhookReads):
    """A client of Phala Cloud's API (version 2026-01-21), safe to share between threads.

    Make one and keep it: it reuses its connections. Use it in a ``with`` statement or call `close`. Its methods take
    keyword arguments named as in the API, answer with immutable models, and raise nothing outside
    `service.phala.errors`.

    Args:
        api_key: of a workspace. None sends none (a commit needs only its token).
        base_url: of the API; None means ``https://cloud-api.phala.com/api/v1``.
        timeout: seconds to connect, to wait for any byte, and to receive the whole body of an answer.
        headers: sent with every call, for example ``X-Workspace-Id``. They cannot replace the API key.
        transport: an httpx transport to use instead of the network, or one with a proxy or an own trust store.
            Environment variables for proxies are not read.
        max_response_bytes: a longer answer is refused.

    Raises:
        InvalidArgument: ``base_url`` is no http(s) URL, or a header holds what HTTP cannot carry.
    """

    def __init__(
        self,
        api_key: str | SecretStr | None = None,
        base_url: str | None = None,
        timeout: float = 30.0,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
    ) -> None:
        super().__init__(
            Transport(
                api_key=api_key,
                base_url=base_url,
                timeout=timeout,
                headers=headers,
                transport=transport,
                max_response_bytes=max_response_bytes,
            )
        )

    @classmethod
    def from_env(cls, **options: Any) -> Self:  # noqa: ANN401 - the constructor's options
        """A client with key and address from ``PHALA_CLOUD_API_KEY`` and ``PHALA_CLOUD_API_PREFIX``.

        The official tools read these unasked; here it takes this call: a process that serves several workspaces must
        not send one's key for another.
        """
        key = os.environ.get("PHALA_CLOUD_API_KEY") or None
        address = os.environ.get("PHALA_CLOUD_API_PREFIX") or None
        return cls(**{"api_key": key, "base_url": address, **options})

    @property
    def base_url(self) -> str:
        """Where this client sends its calls."""
        return self._transport.base_url

    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PhalaCloud(base_url={self.base_url!r})"
