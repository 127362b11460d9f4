"""``countersign audit``: the audit log verified and exported."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer

from service.domain.audit import Broken, Chains, link_of_json
from service.settings import SettingsError

if TYPE_CHECKING:
    from service.store.audit import Checked
    from service.store.database import Database

_EXIT_BROKEN: Final = 1
_TOLD_EVERY: Final = 10_000
_STRICT: Final = "Exit code 1 also where events are not covered by a hash, because an older version wrote them."


def register(app: typer.Typer, database: Callable[[], "Database"]) -> None:
    """Add the commands to an application. ``database`` gives the one of the settings."""
    audit = typer.Typer(help="Verify and export the audit log, see docs/operations.md.", no_args_is_help=True)
    app.add_typer(audit, name="audit")

    @audit.command()
    def verify(
        workspace: Annotated[str | None, typer.Option(help="Slug of the workspace; all if left out.")] = None,
        change_request: Annotated[str | None, typer.Option(help="Id of one change request, cr_...")] = None,
        since: Annotated[
            datetime | None,
            typer.Option(parser=_moment, metavar="TIME", help="Only change requests that changed since then."),
        ] = None,
        file: Annotated[
            Path | None, typer.Option(help="Verify an export instead, without a database; - reads standard input.")
        ] = None,
        strict: Annotated[bool, typer.Option("--strict", help=_STRICT)] = False,
    ) -> None:
        """Follow every chain of hashes, and name each that is broken, where it is.

        Exit code 0 when nothing is broken, else 1. With --file no setting is needed, otherwise what `key` needs.
        """
        if file is not None:
            _end(_verify_file(file), strict=strict)
            return
        _end(_verify(database(), workspace, change_request, since), strict=strict)

    @audit.command()
    def export(
        workspace: Annotated[str, typer.Option(help="Slug of the workspace.")],
        after: Annotated[str, typer.Option(help="`cursor` of the last line you have.")] = "0.0",
    ) -> None:
        """Write every event of a workspace as a line of JSON, oldest first; each has what its hash covers."""
        _export(database(), workspace, after)


@dataclass(slots=True)
class _Found:
    events: int = 0
    chains: int = 0
    broken: int = 0
    uncovered: int = 0
    begun_late: int = 0
    removed: int = 0
    unnumbered: int = 0


def _moment(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise typer.BadParameter("give a time with its offset, such as 2026-07-01T12:00:00Z")
    return time


def _verify(database: "Database", workspace: str | None, change_request: str | None, since: datetime | None) -> _Found:
    from service.store import audit  # noqa: PLC0415 - each command loads what it needs

    found = _Found()
    with _faults(database):
        workspace_id = None if workspace is None else _workspace(database, workspace)
        for step in audit.check(database, audit.Wanted(workspace_id, change_request, since)):
            if isinstance(step, audit.Read):
                _progress(found, step.events)
            else:
                _count(found, step)
        with database.reads() as session:
            found.unnumbered = 0 if change_request else audit.unnumbered(session, workspace_id)
    if change_request is not None and not found.chains:
        raise SettingsError(f"there is no change request {change_request}" + (f" in {workspace}" if workspace else ""))
    return found


def _count(found: _Found, checked: "Checked") -> None:
    found.chains += 1
    found.uncovered += checked.uncovered
    found.removed += checked.removed
    found.begun_late += checked.begins > 1
    if checked.broken is not None:
        _name(found, checked.name, checked.broken)


def _name(found: _Found, chain: str, broken: Broken, place: str = "") -> None:
    found.broken += 1
    typer.echo(f"countersign: {place}{chain}: event {broken.seq} {broken.what}", err=True)


def _progress(found: _Found, events: int) -> None:
    if events // _TOLD_EVERY > found.events // _TOLD_EVERY:
        typer.echo(f"{events} events read", err=True)
    found.events = events


def _verify_file(path: Path) -> _Found:
    found, chains, broken = _Found(), Chains(), set[str]()
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            _progress(found, number)
            try:
                link = link_of_json(line)
            except ValueError as error:
                found.broken += 1
                typer.echo(f"countersign: line {number}: {error}", err=True)
                continue
            if link is None:
                found.unnumbered += 1
                continue
            name, why = chains.follow(link)
            if why is not None and name not in broken:
                broken.add(name)
                _name(found, name, why, f"line {number}: ")
    found.chains, found.uncovered, found.begun_late = chains.count, chains.uncovered, chains.begun_late
    return found


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if str(path) == "-":
        yield sys.stdin
        return
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            yield file
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error


def _end(found: _Found, *, strict: bool) -> None:
    """Say what was found, and end with the exit code that it deserves."""
    notes = (
        (found.uncovered, "events are not covered by a hash yet: an older version wrote them"),
        (found.unnumbered, "events of webhook endpoints are from before there was a chain for them"),
        (found.begun_late, "chains begin in the middle: what was before is not here"),
        (found.removed, "change requests have no events any more: retention deleted them"),
    )
    for count, what in notes:
        if count:
            typer.echo(f"{count} {what}")
    typer.echo(f"{found.events} events in {found.chains} chains, {found.broken} broken")
    if found.broken or (strict and found.uncovered + found.unnumbered):
        raise typer.Exit(_EXIT_BROKEN)


def _export(database: "Database", workspace: str, after: str) -> None:
    from service.store import audit  # noqa: PLC0415 - as above
    from service.store.feed import Place  # noqa: PLC0415

    try:
        place = Place(*map(int, after.split(".")))
    except (TypeError, ValueError):
        raise typer.BadParameter("give the cursor of a line of an export", param_hint="--after") from None
    with _faults(database):
        for line in audit.export(database, _workspace(database, workspace), place):
            sys.stdout.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _workspace(database: "Database", slug: str) -> str:
    from service.store import workspaces  # noqa: PLC0415 - as above

    workspace_id = workspaces.id_of(database, slug)
    if workspace_id is None:
        raise SettingsError(f"there is no workspace {slug}")
    return workspace_id


@contextmanager
def _faults(database: "Database") -> Iterator[None]:
    """Faults of the database as one line; its connections are closed in the end."""
    from service.store.database import DatabaseFault, faults_in_one_line  # noqa: PLC0415 - as above

    try:
        with faults_in_one_line():
            yield
    except DatabaseFault as fault:
        raise SettingsError(f"the database of COUNTERSIGN_DATABASE_URL cannot be used: {fault}") from fault
    finally:
        database.engine.dispose()
