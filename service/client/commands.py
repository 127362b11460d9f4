"""The commands: those of change requests, and ``freeze``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.client import exits, text
from service.client.session import Output, session, stop
from service.client.submission import body, idempotency_key, links_of, metadata_of, object_of

if TYPE_CHECKING:
    from service.client.http import Api

Url = Annotated[str, typer.Option(envvar="COUNTERSIGN_URL", help="Where the API is.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="File that holds the API key; else COUNTERSIGN_API_KEY does.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, progress on stderr.")]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most; exit code 8 when they are over.")]
RepeatKey = Annotated[
    str | None, typer.Option("--idempotency-key", help="Makes a repeat safe; a random one if left out.")
]
WaitForEnd = Annotated[bool, typer.Option("--wait", help="Follow it to its end.")]
OnConflict = Annotated[
    str | None,
    typer.Option(help="supersede: take the place of a live change request of the CVM; refuse if left out."),
]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="Id of the change request, cr_...")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command()(submit)
    app.command()(status)
    app.command(name="list")(list_requests)
    app.command()(wait)
    app.command()(events)
    app.command()(refresh)
    # A further POST to a change request is one more line here.
    app.command(name="cancel", help="Ask for the cancellation of a change request.")(_act("cancel"))
    app.command(name="release", help="Let the commit follow that a policy or a failure holds.")(_act("release"))
    app.command()(retry)
    app.command()(freeze)
    app.command()(unfreeze)


def submit(  # noqa: PLR0913, PLR0917 - an option each
    url: Url,
    cvm: Annotated[str | None, typer.Option(help="Name, vm uuid, app id or instance id of the CVM.")] = None,
    compose: Annotated[Path | None, typer.Option("--compose", "-c", help="Compose file to deploy.")] = None,
    pre_launch: Annotated[Path | None, typer.Option(help="File with the pre-launch script.")] = None,
    allowed_env: Annotated[list[str] | None, typer.Option(help="Name of an environment variable; repeatable.")] = None,
    patch: Annotated[Path | None, typer.Option(help="JSON file with further members of the patch.")] = None,
    prepared: Annotated[
        Path | None, typer.Option(help="What `phala deploy --prepare-only --json` printed; - is standard input.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="One line for people.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why this change.")] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            help="https link to a commit, a pull request, a run; repeatable. In GitHub Actions set by itself."
        ),
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="name=value for your systems; repeatable.")] = None,
    on_conflict: OnConflict = None,
    commit_policy: Annotated[
        str | None, typer.Option(help="hold: once approved it waits for `countersign release`.")
    ] = None,
    not_before: Annotated[
        str | None, typer.Option(help="No commit before this time, such as 2026-07-01T22:00:00Z.")
    ] = None,
    deadline_seconds: Annotated[int | None, typer.Option(help="The request expires after these.")] = None,
    allow_without_approval: Annotated[
        bool, typer.Option("--allow-without-approval", help="Go on even if nothing needs an approval.")
    ] = False,
    repeat_key: RepeatKey = None,
    wait_for_end: WaitForEnd = False,
    timeout: Timeout = None,
    api_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """File a change request; with --wait follow it, and end with the exit code of its state."""
    out = Output(as_json)
    with session(url, api_key_file) as api:
        key = idempotency_key(repeat_key)
        whole = body(
            compose=compose,
            pre_launch=pre_launch,
            allowed_envs=allowed_env or [],
            patch=patch,
            prepared=prepared,
            cvm_id=cvm,
            title=title,
            reason=reason,
            links=links_of(link or [], os.environ),
            metadata=metadata_of(metadata or []),
            on_conflict=on_conflict,
            commit_policy=commit_policy,
            not_before=not_before,
            deadline_seconds=deadline_seconds,
            allow_without_approval=allow_without_approval,
        )
        _submit(api, lambda: api.submit(whole, key), key, out, wait_for_end=wait_for_end, timeout=timeout)


def retry(  # noqa: PLR0917 - an option each
    request_id: RequestId,
    url: Url,
    on_conflict: OnConflict = None,
    deadline_seconds: Annotated[int | None, typer.Option(help="The new one expires after these.")] = None,
    repeat_key: RepeatKey = None,
    wait_for_end: WaitForEnd = False,
    timeout: Timeout = None,
    api_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Submit the patch of a change request that ended, without being completed, once more."""
    out = Output(as_json)
    members = {"on_conflict": on_conflict, "deadline_seconds": deadline_seconds}
    whole = {name: value for name, value in members.items() if value is not None}
    with session(url, api_key_file) as api:
        key = idempotency_key(repeat_key)

        def send() -> text.Json:
            return api.act(request_id, "retry", whole, idempotency_key=key)

        _submit(api, send, key, out, wait_for_end=wait_for_end, timeout=timeout)


def _submit(
    api: "Api", send: Callable[[], text.Json], key: str, out: Output, *, wait_for_end: bool, timeout: float | None
) -> None:
    """Send what makes a change request, show it, and follow it if that is wanted."""
    from service.client.http import AnswerLost  # noqa: PLC0415 - loaded by now

    try:
        request = send()
    except AnswerLost as error:
        raise stop(exits.REFUSED, f"{error}; {_perhaps_stored(key)}") from error
    except KeyboardInterrupt:
        raise stop(exits.INTERRUPTED, f"interrupted before the answer; {_perhaps_stored(key)}") from None
    if wait_for_end:
        out.say(f"submitted {text.shown(request['id'])}")
        _follow(api, request, timeout, out)
    out.give(request, lambda: text.summary(request))


def freeze(
    url: Url,
    reason: Annotated[str, typer.Option(help="For people; every change request that it holds shows it.")],
    api_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold all commits of the workspace until `countersign unfreeze`."""
    with session(url, api_key_file) as api:
        answer = api.freeze(reason)
        Output(as_json).give(answer, lambda: text.freeze(answer))


def unfreeze(url: Url, api_key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """Let the commits of the workspace go on."""
    with session(url, api_key_file) as api:
        answer = api.unfreeze()
        Output(as_json).give(answer, lambda: text.freeze(answer))


def status(request_id: RequestId, url: Url, api_key_file: KeyFile = None, as_json: AsJson = False) -> None:
    """Show a change request."""
    with session(url, api_key_file) as api:
        request = api.read(request_id)
        Output(as_json).give(request, lambda: text.summary(request))


def list_requests(  # noqa: PLR0913, PLR0917 - an option each
    url: Url,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    cvm: Annotated[str | None, typer.Option(help="Only those of this CVM, as submitted, or its vm uuid.")] = None,
    compose_hash: Annotated[str | None, typer.Option(help="Only those with this compose hash.")] = None,
    live: Annotated[bool | None, typer.Option("--live/--ended", help="Only those under way, or ended.")] = None,
    retry_of: Annotated[str | None, typer.Option(help="Only those that try this one again.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="created_at, updated_at, or with a minus the newest first: -created_at.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="How many; the API has a most.")] = None,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last list ended.")] = None,
    api_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List change requests, newest first."""
    given = {
        "state": state,
        "cvm_id": cvm,
        "compose_hash": compose_hash,
        "live": None if live is None else str(live).lower(),
        "retry_of": retry_of,
        "sort": sort,
        "limit": limit,
        "cursor": cursor,
    }
    filters = {name: str(value) for name, value in given.items() if value is not None}
    with session(url, api_key_file) as api:
        page = api.page(filters)
        more = page["next_cursor"]
        tail = [f"more: --cursor {text.shown(more)}"] if more else []
        Output(as_json).give(page, lambda: [text.row(one) for one in page["items"]] + tail)


def wait(
    request_id: RequestId, url: Url, timeout: Timeout = None, api_key_file: KeyFile = None, as_json: AsJson = False
) -> None:
    """Follow a change request to its end, and end with the exit code of its state."""
    with session(url, api_key_file) as api:
        _follow(api, api.read(request_id), timeout, Output(as_json))


def events(
    request_id: RequestId,
    url: Url,
    after: Annotated[int, typer.Option(min=0, help="Sequence number to start after.")] = 0,
    api_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the timeline of a change request."""
    with session(url, api_key_file) as api:
        items: list[text.Json] = []
        while new := (page := api.events(request_id, after))["items"]:
            items += new
            after = page["last_seq"]
        Output(as_json).give({"items": items, "last_seq": after}, lambda: [text.event(one) for one in items])


def refresh(
    request_id: RequestId,
    url: Url,
    prepared: Annotated[
        Path | None, typer.Option(help="The same update prepared again by `phala`; - is standard input.")
    ] = None,
    api_key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Renew the commit token: the service prepares its patch again, or takes the token that is handed in."""
    with session(url, api_key_file) as api:
        handed_in = None if prepared is None else {"prepared": object_of(prepared)}
        request = api.act(request_id, "refresh", handed_in)
        Output(as_json).give(request, lambda: text.summary(request))


def _perhaps_stored(key: str) -> str:
    return (
        "the change request may have been stored: look with `countersign list --live` before you submit again, "
        f"and then with --idempotency-key {key}"
    )


def _act(verb: str) -> Callable[..., None]:
    def act(request_id: RequestId, url: Url, api_key_file: KeyFile = None, as_json: AsJson = False) -> None:
        with session(url, api_key_file) as api:
            request = api.act(request_id, verb)
            Output(as_json).give(request, lambda: text.summary(request))

    return act


def _follow(api: "Api", request: text.Json, timeout: float | None, out: Output) -> None:
    from service.client.follow import follow  # noqa: PLC0415 - loads httpx

    go_on = f"it goes on without you; `countersign wait {request['id']}` follows it again"
    try:
        request, code = follow(api, request, timeout, out.say)
    except KeyboardInterrupt:
        raise stop(exits.INTERRUPTED, f"interrupted: {go_on}, `countersign cancel {request['id']}` ends it") from None
    out.give(request, lambda: [text.row(request)])
    if code == exits.STILL_LIVE:
        raise stop(code, f"still {request['state']} after {timeout:g} seconds: {go_on}")
    raise typer.Exit(code)
