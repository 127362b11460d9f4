"""What every command has in common: where the API is, the key, and how a fault ends it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from service.client import exits, text
from service.client.submission import InputError, text_of

if TYPE_CHECKING:
    from service.client.http import Api

KEY_VARIABLE = "COUNTERSIGN_API_KEY"


@dataclass(frozen=True, slots=True)
class Output:
    """The result on standard output, as words or as one JSON document; progress on standard error."""

    as_json: bool

    def say(self, line: str) -> None:
        """A line of progress."""
        typer.echo(line, err=True)

    def give(self, value: object, lines: Callable[[], list[str]]) -> None:
        """The result."""
        for line in [text.document(value)] if self.as_json else lines():
            typer.echo(line)


@contextmanager
def session(url: str, key_file: Path | None) -> Iterator["Api"]:
    """The API; faults inside end the command with one line on standard error."""
    from service.client.http import Api, ApiError  # noqa: PLC0415 - httpx is slow to load, and --help needs none

    try:
        with Api(_checked(url), _key(key_file), notice=_notice) as api:
            yield api
    except InputError as error:
        raise stop(exits.USAGE, str(error)) from error
    except ApiError as error:
        raise stop(exits.REFUSED, str(error)) from error
    except UnicodeError as error:
        raise stop(exits.USAGE, "an option or a file holds characters that cannot be sent") from error
    except KeyboardInterrupt:
        raise stop(exits.INTERRUPTED, "interrupted") from None
    except KeyError as error:
        raise stop(exits.REFUSED, f"the answer has no {error}: is the API of another version?") from error


def _notice(line: str) -> None:
    typer.echo(f"countersign: {text.shown(line)}", err=True)


def stop(code: int, line: str) -> typer.Exit:
    """The end of a command, with one line that says why."""
    _notice(line)
    return typer.Exit(code)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        usable = parts.scheme in {"http", "https"} and host and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # UnicodeError, of a host that has no IDNA form, is one
        usable = False
    if not usable or " " in url or not url.isprintable() or parts.query or parts.fragment:
        raise InputError("--url (COUNTERSIGN_URL) must be http(s)://host, without a user name or a query")
    return url


def _key(key_file: Path | None) -> str:
    key = os.environ.get(KEY_VARIABLE, "") if key_file is None else text_of(key_file)
    key = key.strip()
    if not key:
        raise InputError(f"no API key: set {KEY_VARIABLE}, or name a file that holds it with --api-key-file")
    if not (key.isascii() and key.isprintable()):
        raise InputError("the API key has characters that no key has")
    return key
