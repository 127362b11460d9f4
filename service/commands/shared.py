"""What the operator's commands have in common: settings and logging, the database, refusals in one line."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import settings as configuration
from service.logs import Ids, JsonLines, WithExtras
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from service.store.database import Database

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_QUIET = (
    # These log whole URLs, and URLs of others may hold credentials.
    "httpx",
    "httpcore",
    "urllib3",
    # One line per message or look is no news.
    "celery.beat",
    "celery.app.trace",
    "celery.worker.strategy",
    "alembic.runtime.migration",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def duration(text: str) -> timedelta:
    """A whole number of seconds, minutes, hours or days, such as ``90d``; at most ten years."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    span = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if span is None or span > timedelta(days=3650):
        raise typer.BadParameter("give a whole number of s, m, h or d up to ten years, such as 90d")
    return span


def load() -> Settings:
    """The settings, with logging set up as they say.

    Raises:
        SettingsError: a value makes no sense.
    """
    settings = configuration.load()
    handler = logging.StreamHandler(sys.stderr)
    as_text = WithExtras("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else as_text)
    handler.addFilter(Ids())
    logging.basicConfig(level=settings.log_level, handlers=[handler])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    return settings


def text_of(file: Path) -> str:
    """What is in a file, or in standard input for ``-``.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} cannot be read: it is not UTF-8") from error


@contextmanager
def on_database(settings: Settings) -> Iterator["Database"]:
    """The database, with its faults and the store's refusals as one line.

    Raises:
        SettingsError: what was refused.
    """
    from service.store.api_keys import KeyEnded, KeyUnknown, TooManyKeys  # noqa: PLC0415 - each command loads its own
    from service.store.database import DatabaseFault, faults_in_one_line  # noqa: PLC0415
    from service.store.registered import TooManyRegistered  # noqa: PLC0415
    from service.store.workspaces import WorkspaceExists, WorkspaceUnknown  # noqa: PLC0415
    from service.wiring import database_of  # noqa: PLC0415

    database = database_of(settings, pool_size=1)
    try:
        with faults_in_one_line():
            yield database
    except DatabaseFault as fault:
        raise SettingsError(f"the database of COUNTERSIGN_DATABASE_URL cannot be used: {fault}") from fault
    except (KeyEnded, KeyUnknown, TooManyKeys, TooManyRegistered, WorkspaceExists, WorkspaceUnknown) as refusal:
        raise SettingsError(str(refusal)) from refusal
    finally:
        database.engine.dispose()
