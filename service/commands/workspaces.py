"""``countersign workspace``: tenants, for operators. Works on the database; what it sets counts at once."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.client import text
from service.commands import workspace_options as options
from service.commands import workspace_text
from service.commands.operators import operator
from service.commands.shared import AsJson, load, on_database, text_of
from service.commands.workspace_options import Slug
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from service.store.database import Database
    from service.store.registered import Contract
    from service.store.workspaces import WorkspaceSpec

app = typer.Typer(
    help="Manage workspaces (tenants). Needs COUNTERSIGN_DATABASE_URL, _ENCRYPTION_KEYS and _FINGERPRINT_KEY; short "
    "names of chains are those of COUNTERSIGN_CHAINS, and the well-known ones.",
    no_args_is_help=True,
)


@app.command("list")
def listing(*, as_json: AsJson = False) -> None:
    """List the workspaces, a line for each, with what blocks them."""
    from service.store import workspaces  # noqa: PLC0415 - each command loads what it needs

    settings = load()
    with on_database(settings) as database:
        with database.transaction() as session:
            rows = workspaces.listing(session)
        shown = [_described(database, settings, row.id) for row in rows]
    if as_json:
        typer.echo(text.document(shown))
        return
    for one in shown:
        typer.echo(f"{one['slug']}  {workspace_text.standing(one)}  {text.shown(one['name'] or '')}".rstrip())


@app.command("show")
def show(slug: Slug, *, as_json: AsJson = False) -> None:
    """Show what a workspace is set to, what it registered, and what blocks it. Never a secret."""
    settings = load()
    with on_database(settings) as database:
        _print(database, settings, slug, as_json=as_json)


@app.command("create")
def create(
    slug: Slug,
    *,
    phala_api_key_file: Annotated[
        Path, typer.Option(help="File with the Phala API key and nothing else; - reads standard input.")
    ],
    phala_base_url: options.BaseUrl = None,
    phala_webhook_secrets_file: options.HooksFile = None,
    name: options.Name = None,
    as_json: AsJson = False,
) -> None:
    """Create a workspace. Then register its Safes with add-safe, and make a key with `countersign key create`."""
    from service.commands.workspace_file import PHALA_BASE_URL, checked_slug  # noqa: PLC0415
    from service.store import workspaces  # noqa: PLC0415

    members = options.given(name=name) | options.secrets(phala_api_key_file, phala_webhook_secrets_file)
    settings, changes = load(), options.changes(members)
    with on_database(settings) as database:
        workspaces.create(database, checked_slug(slug), phala_base_url or PHALA_BASE_URL, changes, operator())
        _print(database, settings, slug, as_json=as_json)


@app.command("set")
def change(  # noqa: PLR0913 - each an option
    slug: Slug,
    *,
    name: options.Name = None,
    phala_api_key_file: options.KeyFile = None,
    phala_webhook_secrets_file: options.HooksFile = None,
    phala_base_url: options.BaseUrl = None,
    allow_without_approval: options.WithoutApproval = None,
    submit_scope: options.Least = None,
    cancel_scope: options.Least = None,
    release_scope: options.Least = None,
    cancel_own_only: options.OwnOnly = None,
    deadline: options.Deadline = None,
    run_deadline: options.RunDeadline = None,
    commit_policy: options.Commits = None,
    parallel_commits: options.Parallel = None,
    events_kept: options.EventsKept = None,
    deliveries_kept: options.DeliveriesKept = None,
    as_json: AsJson = False,
) -> None:
    """Change what is told, and leave the rest. With another Phala API key, what waited for it goes on at once."""
    policy = options.given(
        submit=submit_scope,
        cancel=cancel_scope,
        release=release_scope,
        cancel_own_only=cancel_own_only,
        allow_without_approval=allow_without_approval,
    )
    deadlines = options.given(request_seconds=options.seconds(deadline), run_seconds=options.seconds(run_deadline))
    commits = options.given(policy=commit_policy, parallel=parallel_commits)
    retention = options.kept("events_days", events_kept) | options.kept("deliveries_days", deliveries_kept)
    members = options.given(name=name) | options.secrets(phala_api_key_file, phala_webhook_secrets_file)
    parts = {"policy": policy, "deadlines": deadlines, "commits": commits, "retention": retention}
    _set(slug, members | parts, phala_base_url, as_json)


def _set(slug: str, members: dict[str, Any], phala_base_url: str | None, as_json: bool) -> None:
    from dataclasses import replace  # noqa: PLC0415

    from service.store import workspace_settings, workspaces  # noqa: PLC0415

    settings, changes = load(), replace(options.changes(members), phala_base_url=phala_base_url)
    with on_database(settings) as database:
        workspace_settings.change(database, workspaces.named(database, slug), changes, operator())
        _print(database, settings, slug, as_json=as_json)


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="JSON file, see docs/operations.md; - reads standard input.")],
) -> None:
    """Create or replace a workspace's settings from a JSON file."""
    from service.commands.workspace_file import read  # noqa: PLC0415
    from service.store import workspaces  # noqa: PLC0415

    settings = load()
    spec = read(text_of(file), settings.short_names())
    _check_webhooks(settings, spec)
    with on_database(settings) as database:
        workspace_id = workspaces.save(database, spec, operator())
    typer.echo(json.dumps({"id": workspace_id, "slug": spec.slug}))


def _check_webhooks(settings: Settings, spec: "WorkspaceSpec") -> None:
    from service.domain.errors import AddressRefused  # noqa: PLC0415
    from service.wiring import webhook_guard  # noqa: PLC0415

    guard = webhook_guard(settings)
    for number, (url, _) in enumerate(spec.webhooks):
        try:
            guard.target(url)
        except AddressRefused as error:
            raise SettingsError(f"workspace: webhooks.{number}.url: {error.detail}") from error


@app.command("block")
def block(
    slug: Slug,
    *,
    reason: Annotated[str, typer.Option(help="For people, who read it in the answers of the API; one line.")],
    as_json: AsJson = False,
) -> None:
    """Hold the work of a workspace: nothing new is taken, and nothing is prepared, proposed or committed."""
    from service.store import standing, workspaces  # noqa: PLC0415

    words = reason.strip()
    if not words or not words.isprintable():
        raise SettingsError("workspace: --reason: give one line that says why")
    settings = load()
    with on_database(settings) as database:
        standing.block(database, workspaces.named(database, slug), words, operator())
        _print(database, settings, slug, as_json=as_json)


@app.command("unblock")
def unblock(slug: Slug, *, as_json: AsJson = False) -> None:
    """Let the work of a workspace go on, and look again now at what waits for a key, a Safe or a delegate."""
    from service.store import standing, workspaces  # noqa: PLC0415

    settings = load()
    with on_database(settings) as database:
        standing.unblock(database, workspaces.named(database, slug), operator())
        _print(database, settings, slug, as_json=as_json)


@app.command("add-safe")
def add_safe(slug: Slug, safe: options.Contract, *, as_json: AsJson = False) -> None:
    """Register a Safe whose apps may be changed. Twice changes nothing."""
    from service.store.tables import RegisteredSafe  # noqa: PLC0415

    _register(slug, RegisteredSafe, safe, as_json=as_json)


@app.command("remove-safe")
def remove_safe(slug: Slug, safe: options.Contract, *, as_json: AsJson = False) -> None:
    """Forget a Safe: nothing more is proposed to it. What was proposed already goes on."""
    from service.store.tables import RegisteredSafe  # noqa: PLC0415

    _forget(slug, RegisteredSafe, safe, as_json=as_json)


@app.command("add-external-app")
def add_external_app(slug: Slug, contract: options.Contract, *, as_json: AsJson = False) -> None:
    """Declare that the approval of an app is given elsewhere: nothing is proposed. Twice changes nothing."""
    from service.store.tables import ExternalApp  # noqa: PLC0415

    _register(slug, ExternalApp, contract, as_json=as_json)


@app.command("remove-external-app")
def remove_external_app(slug: Slug, contract: options.Contract, *, as_json: AsJson = False) -> None:
    """Take back that the approval of an app is given elsewhere."""
    from service.store.tables import ExternalApp  # noqa: PLC0415

    _forget(slug, ExternalApp, contract, as_json=as_json)


def _register(slug: str, kind: "type[Contract]", told: str, *, as_json: bool) -> None:
    from service.commands.workspace_file import contract  # noqa: PLC0415
    from service.store import registered, workspaces  # noqa: PLC0415

    settings = load()
    chain_id, address = contract(told, settings.short_names())
    with on_database(settings) as database:
        registered.add(database, workspaces.named(database, slug), kind, chain_id, address, operator())
        _print(database, settings, slug, as_json=as_json)


def _forget(slug: str, kind: "type[Contract]", told: str, *, as_json: bool) -> None:
    from service.commands.workspace_file import contract  # noqa: PLC0415
    from service.store import registered, workspaces  # noqa: PLC0415

    settings = load()
    chain_id, address = contract(told, settings.short_names())
    with on_database(settings) as database:
        workspace_id = workspaces.named(database, slug)
        if registered.remove(database, workspace_id, kind, chain_id, address, operator()) is None:
            raise SettingsError(f"the workspace {slug} has not registered {told}")
        _print(database, settings, slug, as_json=as_json)


def _print(database: "Database", settings: Settings, slug: str, *, as_json: bool) -> None:
    from service.store import workspaces  # noqa: PLC0415

    one = _described(database, settings, workspaces.named(database, slug))
    for line in [text.document(one)] if as_json else workspace_text.lines(one):
        typer.echo(line)


def _described(database: "Database", settings: Settings, workspace_id: str) -> dict[str, Any]:
    """A workspace as the API shows it, with what it registered."""
    from service.api import workspace_schemas  # noqa: PLC0415
    from service.store import registered, standing  # noqa: PLC0415
    from service.store.tables import ExternalApp, RegisteredSafe, Workspace  # noqa: PLC0415
    from service.wiring import chain_links  # noqa: PLC0415

    chains = chain_links(settings)
    with database.transaction() as session:
        row = session.get_one(Workspace, workspace_id)
        shown = workspace_schemas.workspace(row, standing.hindrances(session, row), database.public_url)
        safes = registered.listing(session, workspace_id, RegisteredSafe)
        apps = registered.listing(session, workspace_id, ExternalApp)
    return {
        **shown.model_dump(mode="json"),
        "safes": [workspace_schemas.contract(one, chains).model_dump(mode="json") for one in safes],
        "external_apps": [workspace_schemas.contract(one, chains).model_dump(mode="json") for one in apps],
    }
