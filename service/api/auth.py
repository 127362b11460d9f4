"""Bearer API keys: which workspace speaks."""

import hashlib
import hmac
from collections.abc import Mapping

from pydantic import SecretStr

from service.api.problems import UNAUTHORIZED, Problem

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="countersign"'}


class ApiKeys:
    """The configured keys, kept as hashes only.

    Every key is compared on every request, each in constant time, so that timing tells neither which key nor how much
    of it was right.
    """

    def __init__(self, keys: Mapping[str, SecretStr]) -> None:
        """Take the keys by workspace slug.

        Raises:
            ValueError: a key is empty, or two workspaces share one.
        """
        self._slugs = [(_digest(key.get_secret_value()), slug) for slug, key in keys.items()]
        empty = [slug for slug, key in keys.items() if not key.get_secret_value()]
        if empty:
            raise ValueError(f"the API key of workspace {empty[0]} is empty")
        if len({digest for digest, _ in self._slugs}) != len(self._slugs):
            raise ValueError("two workspaces have the same API key")

    def workspace_of(self, authorization: str | None) -> str:
        """Slug of the workspace whose key the ``Authorization`` header carries.

        Raises:
            Problem: ``unauthorized``.
        """
        scheme, _, presented = (authorization or "").partition(" ")
        digest = _digest(presented.strip())
        found = None
        for known, slug in self._slugs:
            if hmac.compare_digest(known, digest):
                found = slug
        if scheme.lower() != "bearer" or found is None:
            raise Problem(
                UNAUTHORIZED,
                "Send `Authorization: Bearer <API key>` with a key of your workspace.",
                headers=_CHALLENGE,
            )
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
