"""Composition root: what each kind of process is made of. The only importer of adapters.

Adapters are imported where they are needed, so that the API does not load what only workers use.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.domain.chain_names import explorer_of
from service.domain.errors import Unreachable
from service.domain.finality import parse_finality
from service.domain.webhook_urls import AllowList
from service.settings import PREFIX, ChainSettings, Settings, SettingsError
from service.store import figures, revision, workspaces
from service.store.database import IDLE_SECONDS, Database, DatabaseFault, faults_in_one_line, make_engine
from service.store.heartbeats import SafeServiceSigns
from service.store.leases import LeaseKeeper
from service.store.sealing import Sealer
from service.store.standing import KeyStanding
from service.telemetry import traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pydantic import SecretStr

    from service.adapters.chain import JsonRpcChain
    from service.adapters.phala import PhalaAdapter
    from service.adapters.safe import TransactionService
    from service.adapters.webhook_guard import WebhookGuard
    from service.ports import Clock, Phala, Poster, Signer
    from service.store.workspaces import PhalaAccount


class StartRefused(Exception):
    """A fault of the deployment: the process must not start. The message is one line."""


@dataclass(frozen=True, slots=True)
class ChainSetup:
    """How the operator set up a chain, as far as everybody may know it."""

    finality: str
    rpc_endpoints: int
    rpc_agreement: int
    subscribes: bool
    safe_service_url: str
    safe_service_key: bool


@dataclass(frozen=True, slots=True)
class ChainLinks:
    """What links of a chain are made of, and its setup. ``name`` is its EIP-3770 short name."""

    name: str
    safe_app_url: str
    explorer_url: str | None
    setup: ChainSetup | None = None


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """What one API key may ask: requests in a minute; requests, and waiting ones, at once in one process."""

    per_minute: int = 6000
    at_once: int = 20
    waits_at_once: int = 20


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the API is made of."""

    database: Database
    clock: Clock
    chains: Mapping[int, ChainLinks]
    webhook_guard: WebhookGuard
    limits: ApiLimits = ApiLimits()


@dataclass(frozen=True, slots=True)
class Timings:
    """Intervals of the steps, in seconds, and the quota of the Safe Transaction Service (0 for none)."""

    observe: float
    safe_poll: float
    recheck: float
    track: float
    safe_requests_per_month: int = 0
    webhook_disable: float = 5 * 86400.0
    recover: float = 600.0


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker is made of."""

    database: Database
    clock: Clock
    keeper: LeaseKeeper
    chains: Mapping[int, JsonRpcChain]
    queues: Mapping[int, TransactionService]
    signer: Signer
    poster: Poster
    phala: PhalaAccounts
    timings: Timings


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What the listener is made of.

    Attributes:
        ws_urls: of the chains that can be subscribed to.
        patience_seconds: how long a subscription may say nothing, whatever the chain's rhythm.
    """

    database: Database
    chains: Mapping[int, JsonRpcChain]
    ws_urls: Mapping[int, SecretStr]
    poll_seconds: float
    patience_seconds: float = 60.0


@dataclass(slots=True)
class PhalaAccounts:
    """One Phala Cloud client per workspace and key, made when first needed."""

    database: Database
    timeout: float
    _clients: dict[tuple[str, str], PhalaAdapter] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, workspace_id: str) -> Phala:
        """The client of a workspace, with the key it has now. What is said about the key is noted."""
        from service.adapters.watched_phala import WatchedPhala  # noqa: PLC0415 - only workers need it

        account = workspaces.phala_account(self.database, workspace_id)
        standing = KeyStanding(self.database, workspace_id, account.key_set_at, account.faults)
        return WatchedPhala(self._client(account), standing)

    def _client(self, account: PhalaAccount) -> PhalaAdapter:
        from httpx import HTTPTransport  # noqa: PLC0415 - only workers need it

        from service.adapters.observed import Observed  # noqa: PLC0415 - likewise
        from service.adapters.phala import PhalaAdapter  # noqa: PLC0415 - likewise
        from service.phala import PhalaCloud  # noqa: PLC0415 - likewise

        identity = (account.base_url, account.api_key.get_secret_value())
        with self._lock:
            if identity not in self._clients:
                network = Observed(HTTPTransport(trust_env=False), "phala", sends_request_id=True)
                client = PhalaCloud(
                    api_key=account.api_key, base_url=account.base_url, timeout=self.timeout, transport=network
                )
                self._clients[identity] = PhalaAdapter(client)
            return self._clients[identity]


def database_of(settings: Settings, *, pool_size: int = 10, idle_seconds: float = 0.0) -> Database:
    """The database, without looking whether it is there; see ``make_engine``.

    Raises:
        SettingsError: a needed setting is missing or wrong.
    """
    url = settings.need("database_url").get_secret_value()
    engine = make_engine(url, pool_size=pool_size, idle_seconds=idle_seconds)
    sealer = Sealer(settings.sealing_keys(), settings.fingerprint_bytes())
    return Database(engine, sealer, public_url=settings.public_url)


@contextmanager
def database_faults_refuse() -> Iterator[None]:
    """What a process does with its database at the start, where a fault of it is a fault of the deployment.

    Raises:
        StartRefused: there was one.
    """
    try:
        with faults_in_one_line():
            yield
    except DatabaseFault as fault:
        raise StartRefused(f"the database of {PREFIX}DATABASE_URL cannot be used: {fault}") from fault


def _ready_database(settings: Settings, *, pool_size: int = 10, idle_seconds: float = 0.0) -> Database:
    database = database_of(settings, pool_size=pool_size, idle_seconds=idle_seconds)
    with database_faults_refuse():
        ready = revision.is_at_head(database.engine)
    if not ready:
        raise StartRefused("the database is not migrated to this version: run `countersign migrate`")
    return database


def for_api(settings: Settings) -> ApiParts:
    """The API: the database. No broker, no RPC, no proposer key.

    Raises:
        SettingsError, StartRefused: see there.
    """
    from service.adapters.clock import SystemClock  # noqa: PLC0415 - adapters are imported where needed

    return ApiParts(
        database=_ready_database(settings, pool_size=20, idle_seconds=IDLE_SECONDS),
        clock=SystemClock(),
        limits=ApiLimits(settings.api_requests_per_minute, settings.api_requests_at_once, settings.api_waits_at_once),
        chains=chain_links(settings),
        webhook_guard=webhook_guard(settings),
    )


def chain_links(settings: Settings) -> dict[int, ChainLinks]:
    """What is shown of the configured chains."""
    return {
        chain_id: ChainLinks(chain.name, chain.safe_app_url, chain.explorer_url or explorer_of(chain_id), _setup(chain))
        for chain_id, chain in settings.chains.items()
    }


def _setup(chain: ChainSettings) -> ChainSetup:
    """Endpoints are counted and not named: their URLs hold keys. Of a URL that is named, credentials are left out."""
    url = urlsplit(chain.safe_service_url)
    host = url.netloc.rpartition("@")[2]
    return ChainSetup(
        finality=chain.finality,
        rpc_endpoints=len(chain.rpc_urls),
        rpc_agreement=chain.agreeing_endpoints,
        subscribes=chain.ws_url is not None,
        safe_service_url=f"{url.scheme}://{host}{url.path}",
        safe_service_key=chain.safe_service_api_key is not None,
    )


def webhook_guard(settings: Settings) -> WebhookGuard:
    """Says where webhooks may go."""
    from service.adapters.webhook_guard import WebhookGuard  # noqa: PLC0415 - adapters are imported where needed

    return WebhookGuard(AllowList.of(settings.webhook_allowed_hosts))


def for_worker(settings: Settings) -> WorkerParts:
    """A worker: everything.

    Raises:
        SettingsError, StartRefused: see there.
    """
    from service.adapters.clock import SystemClock  # noqa: PLC0415 - only workers need these
    from service.adapters.poster import HttpPoster  # noqa: PLC0415
    from service.adapters.safe import TransactionService  # noqa: PLC0415
    from service.adapters.signer import LocalSigner  # noqa: PLC0415

    settings.need("redis_url")
    signer = _signer(LocalSigner, settings.need("proposer_key"))
    clock = SystemClock()
    database = _ready_database(settings, pool_size=settings.worker_threads + 2, idle_seconds=IDLE_SECONDS)
    queues = {
        chain_id: TransactionService(
            chain.safe_service_url,
            api_key=chain.safe_service_api_key,
            chain_id=chain_id,
            signer=signer,
            timeout=settings.http_timeout_seconds,
            calls=_share(settings),
            heard=SafeServiceSigns(database, chain_id).told,
        )
        for chain_id, chain in settings.chains.items()
    }
    return WorkerParts(
        database=database,
        clock=clock,
        keeper=LeaseKeeper(database),
        chains=_checked_chains(settings),
        queues=queues,
        signer=signer,
        poster=HttpPoster(webhook_guard(settings)),
        phala=PhalaAccounts(database, settings.http_timeout_seconds),
        timings=Timings(
            observe=settings.observe_seconds,
            safe_poll=settings.safe_poll_seconds,
            recheck=settings.recheck_seconds,
            track=settings.track_seconds,
            safe_requests_per_month=settings.safe_requests_per_month,
            webhook_disable=settings.webhook_disable_seconds,
            recover=settings.recover_seconds,
        ),
    )


def for_watch(settings: Settings) -> WatchParts:
    """The listener: the database and the chains.

    Raises:
        SettingsError, StartRefused: see there.
    """
    return WatchParts(
        database=_ready_database(settings, pool_size=len(settings.chains) + 2),
        chains=_checked_chains(settings),
        ws_urls={chain_id: chain.ws_url for chain_id, chain in settings.chains.items() if chain.ws_url},
        poll_seconds=settings.observe_seconds,
    )


@contextmanager
def observed(settings: Settings, process: str, database: Database | None = None) -> Iterator[None]:
    """While the block runs, the process shows its metrics and makes traces, as far as the settings say so.

    Args:
        settings: which port, and where traces go.
        process: the command.
        database: whose connections are shown; for ``serve`` also what the database knows of the deployment.

    Raises:
        StartRefused: the port is taken, or the libraries for traces are missing.
    """
    from service.telemetry.exposition import KEPT_SECONDS, Listener  # noqa: PLC0415 - only processes that run on

    reads: list[tuple[Callable[[], Iterable[figures.Figure]], float]] = []
    if database is not None:
        reads.append((partial(figures.of_the_pool, database), 0.0))
        if process == "serve":
            reads.append((partial(figures.of_the_deployment, database), KEPT_SECONDS))
    with ExitStack() as stack:
        if settings.otlp_endpoint:
            headers = {name: value.get_secret_value() for name, value in settings.otlp_headers.items()}
            try:
                stack.callback(traces.start(settings.otlp_endpoint, headers, process))
            except traces.NotInstalled as error:
                raise StartRefused(f"{PREFIX}OTLP_ENDPOINT is set: {error}") from error
        if settings.metrics_port:
            try:
                listener = Listener(settings.metrics_host, settings.metrics_port, process, reads)
            except OSError as error:
                address = f"{settings.metrics_host}:{settings.metrics_port}"
                raise StartRefused(
                    f"{PREFIX}METRICS_PORT: nothing can listen on {address}: {error.strerror}"
                ) from error
            stack.callback(listener.close)
        yield


def _share(settings: Settings) -> int:
    """How many threads may be inside calls to one service at once, so that others find some when it stalls."""
    return max(1, settings.worker_threads // 2)


def _signer(make: type[Signer], key: SecretStr) -> Signer:
    try:
        return make(key)  # type: ignore[call-arg]  # the port has no constructor
    except ValueError as error:
        raise SettingsError(f"{PREFIX}PROPOSER_KEY is not a private key of 64 hex digits") from error


def _checked_chains(settings: Settings) -> dict[int, JsonRpcChain]:
    """The chains, refused when an endpoint answers another chain id. One that does not answer is not wrong."""
    from service.adapters.chain import JsonRpcChain  # noqa: PLC0415 - only workers and the listener need it

    if not settings.chains:
        raise SettingsError(f"{PREFIX}CHAINS is not set")
    chains = {}
    for chain_id, chain in settings.chains.items():
        rpc_urls = [url.get_secret_value() for url in chain.rpc_urls]
        adapter = JsonRpcChain(
            chain_id,
            rpc_urls,
            parse_finality(chain.finality),
            agreement=chain.agreeing_endpoints,
            calls=_share(settings),
            timeout=settings.http_timeout_seconds,
        )
        try:
            served = adapter.check_chain_id()
        except Unreachable:
            served = chain_id
        if served != chain_id:
            raise StartRefused(f"the RPC endpoint of chain {chain_id} answers chain id {served}: check {PREFIX}CHAINS")
        chains[chain_id] = adapter
    return chains


def subscribe_new_heads(ws_url: SecretStr, stop: threading.Event, patience_seconds: float) -> Iterator[object]:
    """New heads of a chain as they come, until ``stop`` is set.

    Raises:
        Unreachable: the subscription cannot be made, broke, or says nothing.
    """
    from service.adapters.subscribe import new_heads  # noqa: PLC0415 - only the listener needs it

    return new_heads(ws_url.get_secret_value(), stop, patience=patience_seconds)
