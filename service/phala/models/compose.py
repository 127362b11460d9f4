"""The app-compose document as the API returns it."""

from typing import Any, Self

from pydantic import ConfigDict, PrivateAttr

from service.phala.compose_hash import HashForm, canonical_app_compose, compose_hash
from service.phala.models.base import Model


class AppCompose(Model):
    """An app-compose document. Known members are attributes; `document` is all of it, unknown members included."""

    model_config = ConfigDict(extra="ignore")

    docker_compose_file: str
    name: str | None = None
    manifest_version: int | str | None = None
    runner: str | None = None
    features: tuple[str, ...] = ()
    allowed_envs: tuple[str, ...] = ()
    kms_enabled: bool | None = None
    public_logs: bool | None = None
    public_sysinfo: bool | None = None
    public_tcbinfo: bool | None = None
    tproxy_enabled: bool | None = None
    gateway_enabled: bool | None = None
    storage_fs: str | None = None
    pre_launch_script: str | None = None
    env_pubkey: str | None = None
    salt: str | None = None

    _document: dict[str, Any] = PrivateAttr(default_factory=dict)

    def keeping(self, document: dict[str, Any]) -> Self:
        """This model, holding the document it was read from."""
        self._document = document
        return self

    @property
    def document(self) -> dict[str, Any]:
        """The document as received."""
        return self._document

    def compose_hash(self, form: HashForm = "compact") -> str:
        """Hash of the document, computed here. Raises `InvalidArgument` as `service.phala.compose_hash` does."""
        return compose_hash(self._document, form)

    def canonical(self, form: HashForm = "compact") -> str:
        """The hashed text. Raises `InvalidArgument` as `compose_hash` does."""
        return canonical_app_compose(self._document, form)
