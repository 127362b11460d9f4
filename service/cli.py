"""The ``countersign`` command. Faults of the deployment end it with one line on standard error and exit code 2."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import settings as configuration
from service.client import commands
from service.commands import audit
from service.commands.operators import operator
from service.domain.api_keys import Scope
from service.logs import JsonLines, WithExtras
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from service.store.database import Database
    from service.store.tables import ApiKey

EXIT_REFUSED = 2
_CREATED_BY = "command line"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LIFETIME = "How long it works, such as 12h or 90d; for good if left out."
_QUIET = (
    # These log whole URLs, and URLs of others may hold credentials.
    "httpx",
    "httpcore",
    # One line per message or look is no news.
    "celery.beat",
    "celery.app.trace",
    "celery.worker.strategy",
    "alembic.runtime.migration",
)


def duration(text: str) -> timedelta:
    """A whole number of seconds, minutes, hours or days, such as ``90d``; at most ten years."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if span is None or span > timedelta(days=3650):
        raise typer.BadParameter("give a whole number of s, m, h or d up to ten years, such as 90d")
    return span


app = typer.Typer(
    name="countersign",
    help="Multisig approval workflow for Phala Cloud CVMs: prepare, let a Safe's owners approve, commit.",
    epilog="Settings are COUNTERSIGN_* variables, see docs/settings.md. A fault of the deployment ends a command with "
    "one line and exit code 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
workspace_app = typer.Typer(help="Manage workspaces (tenants).", no_args_is_help=True)
app.add_typer(workspace_app, name="workspace")
key_app = typer.Typer(
    help="Manage the keys of the REST API. Needs what `workspace apply` needs; every answer is JSON.",
    no_args_is_help=True,
)
app.add_typer(key_app, name="key")
KeyArgument = Annotated[str, typer.Argument(help="Id of the key, key_...")]
secrets_app = typer.Typer(help="Manage the secrets that the database holds.", no_args_is_help=True)
app.add_typer(secrets_app, name="secrets")
commands.register(app)


def _load() -> Settings:
    settings = configuration.load()
    handler = logging.StreamHandler(sys.stderr)
    as_text = WithExtras("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else as_text)
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    return settings


@app.command()
def serve() -> None:
    """Run the REST API. It needs the database only; workers do the rest.

    Needs COUNTERSIGN_DATABASE_URL, _ENCRYPTION_KEYS and _FINGERPRINT_KEY; COUNTERSIGN_CHAINS names the
    chains that requests may be on. Listens on COUNTERSIGN_API_HOST and _API_PORT. /healthz and /readyz tell its health.
    """
    from service.api.app import create_app  # noqa: PLC0415 - each command loads what it needs
    from service.api.serve import server  # noqa: PLC0415
    from service.wiring import for_api  # noqa: PLC0415

    settings = _load()
    api = create_app(for_api(settings))
    server(api, host=settings.api_host, port=settings.api_port, log_level=settings.log_level).run()


@app.command()
def worker() -> None:
    """Run a worker: it serves change requests, proposals, chains and webhook deliveries.

    Needs COUNTERSIGN_DATABASE_URL, _REDIS_URL, _ENCRYPTION_KEYS, _FINGERPRINT_KEY, _CHAINS and _PROPOSER_KEY. Any
    number may run; killing one loses nothing.
    """
    from workers.run import run_worker  # noqa: PLC0415

    run_worker(_load())


@app.command()
def beat() -> None:
    """Run the clock that makes workers look for due rows. One is enough; two do no harm.

    Needs COUNTERSIGN_REDIS_URL. COUNTERSIGN_SWEEP_SECONDS says how often.
    """
    from workers.run import run_beat  # noqa: PLC0415

    run_beat(_load())


@app.command()
def watch() -> None:
    """Listen to new blocks and ring for their chains, so that approvals are seen at once.

    Needs what a worker needs but the proposer key. Subscribes where a chain has a ws_url, polls where it has none. One
    leads at a time; more stand by.
    """
    from workers.run import run_watch  # noqa: PLC0415

    run_watch(_load())


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="Migrate up to this revision.")] = "head",
) -> None:
    """Bring the database to this version's migrations. Safe to run again.

    Needs COUNTERSIGN_DATABASE_URL. Run it before the processes of a new version start: they refuse an older database.
    """
    from service.store import migrate as migrations  # noqa: PLC0415
    from service.store.database import DatabaseFault, faults_in_one_line  # noqa: PLC0415

    url = _load().need("database_url").get_secret_value()
    try:
        with faults_in_one_line():
            migrations.upgrade(url, revision)
    except DatabaseFault as fault:
        raise SettingsError(f"the database of COUNTERSIGN_DATABASE_URL cannot be migrated: {fault}") from fault
    typer.echo("the database is at the newest migration")


@workspace_app.command("apply")
def workspace_apply(
    file: Annotated[Path, typer.Argument(help="JSON file, see docs/operations.md; - reads standard input.")],
) -> None:
    """Create or replace a workspace's settings from a JSON file."""
    from service.domain.errors import AddressRefused  # noqa: PLC0415
    from service.store import workspaces  # noqa: PLC0415
    from service.wiring import database_of, webhook_guard  # noqa: PLC0415
    from service.workspace_file import read  # noqa: PLC0415

    settings = _load()
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    spec = read(text, settings.short_names())
    guard = webhook_guard(settings)
    for number, (url, _) in enumerate(spec.webhooks):
        try:
            guard.target(url)
        except AddressRefused as error:
            raise SettingsError(f"workspace: webhooks.{number}.url: {error.detail}") from error
    workspace_id = workspaces.save(database_of(settings, pool_size=1), spec, operator())
    typer.echo(json.dumps({"id": workspace_id, "slug": spec.slug}))


@secrets_app.command("rotate")
def secrets_rotate() -> None:
    """Seal every stored secret again with the first of COUNTERSIGN_ENCRYPTION_KEYS. May be stopped and run again.

    Needs COUNTERSIGN_DATABASE_URL, _ENCRYPTION_KEYS (the old keys too) and _FINGERPRINT_KEY. Exit code 1 when a secret
    does not open; the others are done then.
    """
    from service.store.database import DatabaseFault, faults_in_one_line  # noqa: PLC0415
    from service.store.rotation import Progress, rotate, tell  # noqa: PLC0415
    from service.wiring import database_of  # noqa: PLC0415

    database = database_of(_load(), pool_size=1)
    last: dict[str, Progress] = {}
    try:
        with faults_in_one_line():
            for progress in rotate(database):
                last[progress.column] = progress
                typer.echo(f"{progress.column}: {progress.sealed} sealed again, {len(progress.faults)} do not open")
            faults = [line for progress in last.values() for line in progress.faults]
            tell(database, operator(), unreadable=len(faults))
    except DatabaseFault as fault:
        raise SettingsError(f"the database of COUNTERSIGN_DATABASE_URL cannot be used: {fault}") from fault
    finally:
        database.engine.dispose()
    for line in faults:
        typer.echo(f"countersign: {line}", err=True)
    if faults:
        raise typer.Exit(1)


@key_app.command("create")
def key_create(
    workspace: Annotated[str, typer.Option(help="Slug of the workspace.")],
    scope: Annotated[Scope, typer.Option(help="What it may do; each scope includes those before it.")],
    name: Annotated[str, typer.Option(help="For people: who uses it.")] = "",
    expires: Annotated[timedelta | None, typer.Option(parser=duration, metavar="DURATION", help=_LIFETIME)] = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from service.store import api_keys, workspaces  # noqa: PLC0415

    database = _database()
    with _refusing():
        workspace_id = workspaces.id_of(database, workspace)
        if workspace_id is None:
            raise SettingsError(f"there is no workspace {workspace}: create it with `countersign workspace apply`")
        asked = api_keys.NewKey(workspace_id, name or f"{scope.value} key", scope, _CREATED_BY, expires)
        row, key = api_keys.create(database, asked, operator())
    typer.echo(_shown(workspace, row, key=key.get_secret_value()))


@key_app.command("list")
def key_list(
    workspace: Annotated[str | None, typer.Option(help="Slug of the workspace; all if left out.")] = None,
) -> None:
    """List keys, newest first, a line for each, with those that ended."""
    from service.store import api_keys  # noqa: PLC0415

    database = _database()
    with _refusing(), database.transaction() as session:
        for slug, row in api_keys.of_everybody(session, workspace):
            typer.echo(_shown(slug, row))


@key_app.command("revoke")
def key_revoke(key_id: KeyArgument) -> None:
    """End a key at once."""
    from service.store import api_keys  # noqa: PLC0415

    database = _database()
    with _refusing():
        slug, row = api_keys.named(database, key_id)
        api_keys.revoke(database, row.workspace_id, key_id, operator())
        typer.echo(_shown(slug, api_keys.named(database, key_id)[1]))


@key_app.command("rotate")
def key_rotate(
    key_id: KeyArgument,
    overlap: Annotated[
        timedelta, typer.Option(parser=duration, metavar="DURATION", help="How long the old key works on.")
    ] = "24h",  # type: ignore[assignment]  # parsed like what is typed
) -> None:
    """Make a key that does the same and print it, this once. The old one ends after the overlap."""
    from service.store import api_keys  # noqa: PLC0415

    database = _database()
    with _refusing():
        slug, old = api_keys.named(database, key_id)
        row, key = api_keys.rotate(
            database, old.workspace_id, key_id, overlap=overlap, created_by=_CREATED_BY, actor=operator()
        )
    typer.echo(_shown(slug, row, key=key.get_secret_value()))


def _database() -> "Database":
    from service.wiring import database_of  # noqa: PLC0415

    return database_of(_load(), pool_size=1)


audit.register(app, _database)


@contextmanager
def _refusing() -> Iterator[None]:
    """Faults of the database and refusals of keys as one line."""
    from service.store.api_keys import KeyEnded, KeyUnknown, TooManyKeys  # noqa: PLC0415
    from service.store.database import DatabaseFault, faults_in_one_line  # noqa: PLC0415

    try:
        with faults_in_one_line():
            yield
    except DatabaseFault as fault:
        raise SettingsError(f"the database of COUNTERSIGN_DATABASE_URL cannot be used: {fault}") from fault
    except (KeyEnded, KeyUnknown, TooManyKeys) as refusal:
        raise SettingsError(str(refusal)) from refusal


def _shown(workspace: str, row: "ApiKey", **more: str) -> str:
    from service.api.schemas import ApiKeyOut  # noqa: PLC0415

    return json.dumps({**ApiKeyOut.model_validate(row).model_dump(mode="json"), "workspace": workspace, **more})


@app.command()
def sandbox(
    directory: Annotated[Path, typer.Option(help="Where the local world keeps its state.")] = Path("var/sandbox"),
) -> None:
    """Run a local world: an EVM with real Safe contracts, a Phala Cloud, a Safe Transaction Service, and Countersign.

    Prints where everything is, then runs until Ctrl-C. Its state survives a restart.
    """
    from sandbox.local import run  # noqa: PLC0415

    raise typer.Exit(run(directory))


@app.command()
def demo(
    summary: Annotated[Path, typer.Option(help="Where the summary is written as JSON.")] = Path("var/demo.json"),
) -> None:
    """Carry one change request the whole way in a local world, and show what happens."""
    from sandbox.demo import run  # noqa: PLC0415

    raise typer.Exit(run(summary))


def main() -> None:
    """Entry point of the distribution."""
    sys.exit(_guarded(app))


def _guarded(command: Callable[[], object]) -> int:
    try:
        command()
    except SettingsError as error:
        return _refused(error)
    except Exception as error:
        from service.wiring import StartRefused  # noqa: PLC0415 - slow to load: a command that ends well needs none

        if not isinstance(error, StartRefused):
            raise
        return _refused(error)
    return 0


def _refused(error: Exception) -> int:
    sys.stderr.write(f"countersign: {error}\n")
    return EXIT_REFUSED
