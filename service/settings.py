"""The only reader of the environment. Every setting is documented beside its default.

``scripts/generate_docs.py`` writes ``.env.example`` and ``docs/settings.md`` from here.
"""

import base64
import binascii
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as UnreadableSettings

from service.domain.finality import parse_finality
from service.domain.webhook_urls import AllowList

PREFIX = "COUNTERSIGN_"
_KEY_BYTES = 32
_ENOUGH_TO_AGREE, _AGREE = 3, 2  # of three, two can outvote one that lies, and go on without one that is down

Seconds = Annotated[float, Field(gt=0)]


class SettingsError(Exception):
    """A setting is missing or makes no sense; the message is one line and names the variable, never its value."""


class ChainSettings(BaseModel):
    """One EVM chain and the Safe Transaction Service that serves it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="EIP-3770 short name, such as `base`", pattern=r"^[a-z0-9-]{1,32}$")
    rpc_urls: list[SecretStr] = Field(description="JSON-RPC endpoints, best first; three if you can", min_length=1)
    rpc_agreement: int | None = Field(
        default=None,
        ge=1,
        description="how many endpoints must agree on what decides; without it 2 of three or more, else 1",
    )
    ws_url: SecretStr | None = Field(default=None, description="WebSocket endpoint to hear of new blocks at once")
    finality: str = Field(default="finalized", description="`confirmations:<blocks>`, `safe` or `finalized`")
    safe_service_url: str = Field(description="Safe Transaction Service, without `/api`")
    safe_service_api_key: SecretStr | None = Field(default=None, description="its API key, for the hosted one")
    safe_app_url: str = Field(default="https://app.safe.global", description="Safe{Wallet}, for links")
    explorer_url: str | None = Field(default=None, description="block explorer, for links; a well-known chain has one")

    @field_validator("finality")
    @classmethod
    def _finality(cls, value: str) -> str:
        return str(parse_finality(value))

    @model_validator(mode="after")
    def _endpoints(self) -> Self:
        if len({url.get_secret_value() for url in self.rpc_urls}) != len(self.rpc_urls):
            raise ValueError("rpc_urls names an endpoint twice")
        if self.agreeing_endpoints > len(self.rpc_urls):
            raise ValueError("rpc_agreement is more than there are rpc_urls")
        return self

    @property
    def agreeing_endpoints(self) -> int:
        """How many of ``rpc_urls`` must agree on what decides."""
        if self.rpc_agreement is not None:
            return self.rpc_agreement
        return 1 if len(self.rpc_urls) < _ENOUGH_TO_AGREE else _AGREE


class Settings(BaseSettings):
    """All settings, read from ``COUNTERSIGN_*`` variables. What a process does not need it does not ask for."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    database_url: SecretStr | None = Field(
        default=None, description="PostgreSQL: `postgresql://user:password@host:5432/countersign`"
    )
    redis_url: SecretStr | None = Field(
        default=None, description="Redis, the broker that wakes workers: `redis://:password@host:6379/0`"
    )
    encryption_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Keys of the secret columns by key id, as a JSON object of base64 texts of 32 bytes; "
        "the first seals, all open",
    )
    fingerprint_key: SecretStr | None = Field(
        default=None, description="base64 of 32 bytes; recognises a commit token without keeping it; never change it"
    )
    proposer_key: SecretStr | None = Field(
        default=None, description="Private key (64 hex digits) of the Safe delegate that proposes; workers only"
    )
    chains: dict[int, ChainSettings] = Field(
        default_factory=dict, description="Chains by chain id, as a JSON object; see below"
    )
    public_url: str = Field(default="", description="Base URL of this API as others see it, for links in events")
    api_host: str = Field(default="127.0.0.1", description="Address the API listens on")
    api_port: int = Field(default=8080, ge=0, le=65535, description="Port the API listens on; 0 takes a free one")
    api_requests_per_minute: int = Field(
        default=6000, ge=1, description="Requests that an API key may make in a minute, over all processes of the API"
    )
    api_requests_at_once: int = Field(
        default=20, ge=1, description="Requests of an API key that one process of the API serves at once"
    )
    api_waits_at_once: int = Field(
        default=20, ge=1, description="Requests with `wait` of an API key that one process of the API holds at once"
    )
    worker_threads: int = Field(default=8, ge=1, le=64, description="Tasks a worker runs at once")
    sweep_seconds: Seconds = Field(default=1, description="How often due rows are looked for")
    observe_seconds: Seconds = Field(default=5, description="How often a chain is read when no new block rings")
    safe_poll_seconds: Seconds = Field(
        default=60,
        description="How often a proposal's Safe is looked at while there is news, for each up to a fifth later so "
        "that they do not come together; later less often",
    )
    safe_requests_per_month: int = Field(
        default=5000,
        ge=0,
        description="Quota of the account at the Safe Transaction Service; looks at Safes' queues get rarer to keep "
        "it; 0 for none: they are looked at every `safe_poll_seconds`",
    )
    recheck_seconds: Seconds = Field(
        default=600, description="How often a waiting request reads the allowlist itself, whatever the logs say"
    )
    track_seconds: Seconds = Field(default=5, description="How often a committed update is looked at")
    recover_seconds: Seconds = Field(
        default=600,
        description="How often Phala Cloud is searched for events that did not arrive here, and for updates that "
        "nobody here knows of; a look takes a call per webhook and app, with at most 10 apps, and two more",
    )
    http_timeout_seconds: Seconds = Field(default=30, description="Timeout of a call to the outside")
    webhook_allowed_hosts: list[str] = Field(
        default=[],
        description="Receivers of webhooks that need not be public, as a JSON array of host names, addresses and "
        'networks, such as `["hooks.internal", "10.20.0.0/16"]`; the hosts named may be `http`',
    )
    webhook_disable_seconds: Seconds = Field(
        default=5 * 86400, description="An endpoint whose deliveries all failed for so long is disabled"
    )
    stop_seconds: Seconds = Field(
        default=10, description="How long a process that is told to stop lets what it has begun go on; then it ends"
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address the listener for Prometheus listens on")
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of a listener for Prometheus in each process, which needs no key; 0 for none",
    )
    otlp_endpoint: str = Field(
        default="", description="Receiver of traces by OTLP over HTTP, without `/v1/traces`; without it none are made"
    )
    otlp_headers: dict[str, SecretStr] = Field(
        default={}, description="Headers for that receiver, such as its key, as a JSON object"
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level logged")
    log_format: str = Field(
        default="text", pattern="^(text|json)$", description="`text` for people, `json` for one object per line"
    )

    @field_validator("chains")
    @classmethod
    def _names_differ(cls, value: dict[int, ChainSettings]) -> dict[int, ChainSettings]:
        names = [chain.name for chain in value.values()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two chains are called {', '.join(twice)}")
        return value

    def short_names(self) -> dict[str, int]:
        """Ids of the chains by their EIP-3770 short names."""
        return {chain.name: chain_id for chain_id, chain in self.chains.items()}

    @field_validator("public_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("otlp_endpoint")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if not value:
            return value
        url = urlsplit(value)
        if url.scheme not in {"http", "https"} or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise ValueError("is an http(s) URL without credentials, query or fragment; credentials are otlp_headers")
        return value.rstrip("/")

    @field_validator("webhook_allowed_hosts")
    @classmethod
    def _hosts(cls, value: list[str]) -> list[str]:
        AllowList.of(value)
        return value

    def need(self, name: str) -> SecretStr:
        """A secret that this process cannot do without.

        Raises:
            SettingsError: it is not set.
        """
        value = getattr(self, name)
        if not isinstance(value, SecretStr) or not value.get_secret_value():
            raise SettingsError(f"{PREFIX}{name.upper()} is not set")
        return value

    def sealing_keys(self) -> dict[str, bytes]:
        """The encryption keys, decoded.

        Raises:
            SettingsError: none is set, or one is not base64 of 32 bytes.
        """
        if not self.encryption_keys:
            raise SettingsError(f"{PREFIX}ENCRYPTION_KEYS is not set")
        return {key_id: _key(f"{PREFIX}ENCRYPTION_KEYS[{key_id}]", key) for key_id, key in self.encryption_keys.items()}

    def fingerprint_bytes(self) -> bytes:
        """The fingerprint key, decoded.

        Raises:
            SettingsError: not set, or not base64 of 32 bytes.
        """
        return _key(f"{PREFIX}FINGERPRINT_KEY", self.need("fingerprint_key"))


def _key(name: str, text: SecretStr) -> bytes:
    try:
        key = base64.b64decode(text.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SettingsError(f"{name} is not base64 of {_KEY_BYTES} bytes; make one with: openssl rand -base64 32")
    return key


def load() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: a value makes no sense.
    """
    try:
        return Settings()
    except UnreadableSettings as error:
        raise SettingsError(f"the environment cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        path = [str(part) for part in first["loc"]]
        name = PREFIX + path[0].upper() + "".join(f"[{part}]" for part in path[1:])
        raise SettingsError(f"{name}: {first['msg']}") from None
