"""The ``countersign`` command. Faults of the deployment end it with one line on standard error and exit code 2."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from service.client import commands
from service.commands import audit, keys, workspaces
from service.commands.operators import operator
from service.commands.shared import load, on_database
from service.settings import SettingsError

EXIT_REFUSED = 2

app = typer.Typer(
    name="countersign",
    help="Multisig approval workflow for Phala Cloud CVMs: prepare, let a Safe's owners approve, commit.",
    epilog="Settings are COUNTERSIGN_* variables, see docs/settings.md. A fault of the deployment ends a command with "
    "one line and exit code 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(workspaces.app, name="workspace")
app.add_typer(keys.app, name="key")
app.add_typer(audit.app, name="audit")
secrets_app = typer.Typer(help="Manage the secrets that the database holds.", no_args_is_help=True)
app.add_typer(secrets_app, name="secrets")
commands.register(app)


@app.command()
def serve() -> None:
    """Run the REST API. It needs the database only; workers do the rest.

    Needs COUNTERSIGN_DATABASE_URL, _ENCRYPTION_KEYS and _FINGERPRINT_KEY; COUNTERSIGN_CHAINS names the
    chains that requests may be on. Listens on COUNTERSIGN_API_HOST and _API_PORT. /healthz and /readyz tell its health.
    """
    from service.api.app import create_app  # noqa: PLC0415 - each command loads what it needs
    from service.api.serve import server  # noqa: PLC0415
    from service.wiring import for_api, observed  # noqa: PLC0415

    settings = load()
    parts = for_api(settings)
    with observed(settings, "serve", parts.database):
        server(
            create_app(parts),
            host=settings.api_host,
            port=settings.api_port,
            log_level=settings.log_level,
            grace_seconds=settings.stop_seconds,
        ).run()


@app.command()
def worker() -> None:
    """Run a worker: it serves change requests, proposals, chains and webhook deliveries.

    Needs COUNTERSIGN_DATABASE_URL, _REDIS_URL, _ENCRYPTION_KEYS, _FINGERPRINT_KEY, _CHAINS and _PROPOSER_KEY. Any
    number may run; killing one loses nothing.
    """
    from workers.run import run_worker  # noqa: PLC0415

    run_worker(load())


@app.command()
def beat() -> None:
    """Run the clock that makes workers look for due rows. One is enough; two do no harm.

    Needs COUNTERSIGN_REDIS_URL. COUNTERSIGN_SWEEP_SECONDS says how often.
    """
    from workers.run import run_beat  # noqa: PLC0415

    run_beat(load())


@app.command()
def watch() -> None:
    """Listen to new blocks and ring for their chains, so that approvals are seen at once.

    Needs what a worker needs but the proposer key. Subscribes where a chain has a ws_url, polls where it has none. One
    leads at a time; more stand by.
    """
    from workers.run import run_watch  # noqa: PLC0415

    run_watch(load())


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="Migrate up to this revision.")] = "head",
) -> None:
    """Bring the database to this version's migrations. Safe to run again.

    Needs COUNTERSIGN_DATABASE_URL. Run it before the processes of a new version start: they refuse an older database.
    """
    from service.store import migrate as migrations  # noqa: PLC0415
    from service.store.database import DatabaseFault, faults_in_one_line  # noqa: PLC0415

    url = load().need("database_url").get_secret_value()
    try:
        with faults_in_one_line():
            migrations.upgrade(url, revision)
    except DatabaseFault as fault:
        raise SettingsError(f"the database of COUNTERSIGN_DATABASE_URL cannot be migrated: {fault}") from fault
    typer.echo("the database is at the newest migration")


@secrets_app.command("rotate")
def secrets_rotate() -> None:
    """Seal every stored secret again with the first of COUNTERSIGN_ENCRYPTION_KEYS. May be stopped and run again.

    Needs COUNTERSIGN_DATABASE_URL, _ENCRYPTION_KEYS (the old keys too) and _FINGERPRINT_KEY. Exit code 1 when a secret
    does not open; the others are done then.
    """
    from service.store.rotation import Progress, rotate, tell  # noqa: PLC0415

    last: dict[str, Progress] = {}
    with on_database(load()) as database:
        for progress in rotate(database):
            last[progress.column] = progress
            typer.echo(f"{progress.column}: {progress.sealed} sealed again, {len(progress.faults)} do not open")
        faults = [line for progress in last.values() for line in progress.faults]
        tell(database, operator(), unreadable=len(faults))
    for line in faults:
        typer.echo(f"countersign: {line}", err=True)
    if faults:
        raise typer.Exit(1)


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
