"""``countersign key``: the keys of the REST API, for operators."""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.operators import operator
from service.commands.shared import duration, load, on_database
from service.domain.api_keys import Scope

if TYPE_CHECKING:
    from service.store.tables import ApiKey

_CREATED_BY = "command line"
_LIFETIME = "How long it works, such as 12h or 90d; for good if left out."

app = typer.Typer(
    help="Manage the keys of the REST API. Needs what `workspace` needs; every answer is JSON.",
    no_args_is_help=True,
)
KeyArgument = Annotated[str, typer.Argument(help="Id of the key, key_...")]


@app.command("create")
def create(
    workspace: Annotated[str, typer.Option(help="Slug of the workspace.")],
    scope: Annotated[Scope, typer.Option(help="What it may do; each scope includes those before it.")],
    name: Annotated[str, typer.Option(help="For people: who uses it.")] = "",
    expires: Annotated[timedelta | None, typer.Option(parser=duration, metavar="DURATION", help=_LIFETIME)] = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from service.store import api_keys, workspaces  # noqa: PLC0415 - each command loads what it needs

    with on_database(load()) as database:
        workspace_id = workspaces.named(database, workspace)
        asked = api_keys.NewKey(workspace_id, name or f"{scope.value} key", scope, _CREATED_BY, expires)
        row, key = api_keys.create(database, asked, operator())
    typer.echo(_shown(workspace, row, key=key.get_secret_value()))


@app.command("list")
def listing(
    workspace: Annotated[str | None, typer.Option(help="Slug of the workspace; all if left out.")] = None,
) -> None:
    """List keys, newest first, a line for each, with those that ended."""
    from service.store import api_keys  # noqa: PLC0415

    with on_database(load()) as database, database.transaction() as session:
        for slug, row in api_keys.of_everybody(session, workspace):
            typer.echo(_shown(slug, row))


@app.command("revoke")
def revoke(key_id: KeyArgument) -> None:
    """End a key at once."""
    from service.store import api_keys  # noqa: PLC0415

    with on_database(load()) as database:
        slug, row = api_keys.named(database, key_id)
        api_keys.revoke(database, row.workspace_id, key_id, operator())
        typer.echo(_shown(slug, api_keys.named(database, key_id)[1]))


@app.command("rotate")
def rotate(
    key_id: KeyArgument,
    overlap: Annotated[
        timedelta, typer.Option(parser=duration, metavar="DURATION", help="How long the old key works on.")
    ] = "24h",  # type: ignore[assignment]  # parsed like what is typed
) -> None:
    """Make a key that does the same and print it, this once. The old one ends after the overlap."""
    from service.store import api_keys  # noqa: PLC0415

    with on_database(load()) as database:
        slug, old = api_keys.named(database, key_id)
        row, key = api_keys.rotate(
            database, old.workspace_id, key_id, overlap=overlap, created_by=_CREATED_BY, actor=operator()
        )
    typer.echo(_shown(slug, row, key=key.get_secret_value()))


def _shown(workspace: str, row: "ApiKey", **more: str) -> str:
    from service.api.schemas import ApiKeyOut  # noqa: PLC0415

    return json.dumps({**ApiKeyOut.model_validate(row).model_dump(mode="json"), "workspace": workspace, **more})
