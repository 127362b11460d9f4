"""Options of ``countersign workspace``, and what they mean as members of a change."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from service.commands.shared import duration, text_of
from service.domain.api_keys import Scope
from service.domain.gates import MOST_PARALLEL, CommitPolicy
from service.settings import SettingsError

if TYPE_CHECKING:
    from service.store.workspace_settings import Changes

_FOREVER: Final = "forever"
_DAY: Final = timedelta(days=1)

Slug = Annotated[str, typer.Argument(help="Slug of the workspace.")]
Contract = Annotated[str, typer.Argument(help="Chain and checksummed address: base:0x... (EIP-3770) or 8453:0x...")]
Name = Annotated[str | None, typer.Option(help="For people.")]
BaseUrl = Annotated[str | None, typer.Option(help="Phala Cloud's API.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--phala-api-key-file", help="File with the Phala API key and nothing else; - reads standard input."),
]
HooksFile = Annotated[
    Path | None,
    typer.Option(
        "--phala-webhook-secrets-file",
        help="File with the secrets of Phala Cloud's webhooks, one a line; they replace those before.",
    ),
]
WithoutApproval = Annotated[
    bool | None,
    typer.Option(
        "--allow-without-approval/--never-without-approval",
        help="Whether requests may ask for changes that need no approval.",
    ),
]
Least = Annotated[Scope | None, typer.Option(help="Least scope of a key for this: submit, manage or admin.")]
OwnOnly = Annotated[
    bool | None,
    typer.Option("--cancel-own-only/--cancel-any", help="Whether a key below manage cancels only what it submitted."),
]
Deadline = Annotated[
    timedelta | None,
    typer.Option(parser=duration, metavar="DURATION", help="A request up to its commit, such as 30d; 1m to 90d."),
]
RunDeadline = Annotated[
    timedelta | None,
    typer.Option(parser=duration, metavar="DURATION", help="A committed update until it runs, such as 1h; 1m to 1d."),
]
Commits = Annotated[
    CommitPolicy | None, typer.Option(help="auto: commits follow their approvals; hold: they wait for a release.")
]
Parallel = Annotated[
    int | None, typer.Option(help=f"CVMs of one app that may be updated at the same time, up to {MOST_PARALLEL}.")
]
EventsKept = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Events of a request, from its end: 7d to 3650d, or forever.")
]
DeliveriesKept = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Deliveries that ended: 7d to 3650d, or forever.")
]


def secrets(key: Path | None, hooks: Path | None) -> dict[str, Any]:
    """Members that come from files: a secret on the command line would be seen by everybody on the machine.

    Raises:
        SettingsError: a file cannot be read.
    """
    members: dict[str, Any] = {}
    if key is not None:
        members["phala_api_key"] = text_of(key).strip()
    if hooks is not None:
        members["phala_webhook_secrets"] = text_of(hooks).split()
    return members


def kept(option: str, value: str | None) -> dict[str, int | None]:
    """Days out of an option, null for ever; nothing if it was not given.

    Raises:
        SettingsError: neither a number of days nor for ever.
    """
    if value is None:
        return {}
    if value == _FOREVER:
        return {option: None}
    days, rest = divmod(duration(value), _DAY)
    if rest:
        raise SettingsError(f"workspace: {option}: give whole days, such as 90d, or {_FOREVER}")
    return {option: days}


def seconds(span: timedelta | None) -> int | None:
    """A duration in whole seconds."""
    return None if span is None else int(span.total_seconds())


def given(**members: object) -> dict[str, Any]:
    """Those members that were given."""
    return {name: value for name, value in members.items() if value is not None}


def changes(members: Mapping[str, Any]) -> "Changes":
    """Members as the API takes them, within the same bounds, as a change.

    Raises:
        SettingsError: one makes no sense.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - each command loads what it needs

    from service.api.workspace_bodies import WorkspaceChange  # noqa: PLC0415
    from service.commands.workspace_file import refusal  # noqa: PLC0415

    try:
        return WorkspaceChange.model_validate(members).changes()
    except ValidationError as error:
        raise refusal(error, "the options") from None
