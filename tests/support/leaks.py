"""Finding secrets where they must not be: in whatever a deployment writes, sends, answers and is called with."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import psutil
import psycopg
import redis
from psycopg import sql

SHORTEST = 16
"""Shorter secrets would be found by chance."""


class Secrets:
    """Secrets by name, and every form in which one could have been written down."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """Take them; the short ones, such as a configured server's password, are left out."""
        secrets = {name: secret for name, secret in secrets.items() if len(secret) >= SHORTEST}
        self._forms = {name: frozenset(_forms(secret)) for name, secret in secrets.items()}

    def found_in(self, written: Mapping[str, bytes]) -> list[str]:
        """``secret in place`` for each secret and place that holds it, in upper or lower case."""
        lowered = {place: content.lower() for place, content in written.items()}
        return [
            f"{name} in {place}"
            for place, content in lowered.items()
            for name, forms in self._forms.items()
            if any(form in content for form in forms)
        ]


def _forms(secret: str) -> Iterator[bytes]:
    """As it is, without dashes and prefixes, quoted, and in hex and base64, also in the middle of something longer."""
    plain = {secret, secret.replace("-", ""), secret.removeprefix("whsec_")}
    contents = {text.encode() for text in plain} | {raw for text in plain if (raw := _decoded(text))}
    for text in plain:
        yield from (
            text.lower().encode(),
            quote(text, safe="").lower().encode(),
            json.dumps(text)[1:-1].lower().encode(),
        )
    for content in contents:
        yield content.hex().encode()
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for offset in range(3):
                # Without what its neighbours have a part in.
                yield encode(bytes(offset) + content)[4 if offset else 0 :].rstrip(b"=")[:-1].lower()


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def files(directory: Path, *, but: Iterable[str] = ()) -> dict[str, bytes]:
    """Content of every file below a directory, also of what a server keeps there."""
    kept = {}
    for path in directory.rglob("*"):
        if path.is_file() and path.name not in but:
            try:
                kept[str(path.relative_to(directory))] = path.read_bytes()
            except FileNotFoundError:  # servers remove what they do not need any more
                continue
    return kept


def data_directory(database_url: str) -> Path:
    """Where the server of a database keeps its files, written out up to now."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CHECKPOINT")
        (directory,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    return Path(directory)


def tables(database_url: str) -> dict[str, bytes]:
    """Every row of every table as text, bytea in hex."""
    with psycopg.connect(database_url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = {
            str(name): connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name))).fetchall()
            for (name,) in names
        }
    return {f"table {name}": "\n".join(row for (row,) in found).encode() for name, found in rows.items()}


def command_lines() -> dict[str, bytes]:
    """The arguments of every process of this machine."""
    running = psutil.process_iter(["pid", "cmdline"])
    return {f"process {one.info['pid']}": " ".join(one.info["cmdline"] or []).encode() for one in running}


def broker_content(url: str) -> bytes:
    """Every key of a Redis and what is in it."""
    with redis.Redis.from_url(url) as client:
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"zset": lambda key: client.zrange(key, 0, -1),
            b"none": lambda _: None,  # taken out by who works meanwhile
        }
        return "\n".join(f"{key!r} {read[client.type(key)](key)}" for key in client.scan_iter()).encode()


class Broker:
    """Everything that is sent to a Redis while its context lasts."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._monitor = self._client.monitor()
        self._last = uuid4().hex
        self._commands: list[str] = []
        self._thread = Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.echo(self._last)
        self._thread.join(10)
        self._monitor.__exit__(kind, error, trace)
        self._client.close()

    def _listen(self) -> None:
        for command in self._monitor.listen():
            if self._last in command["command"]:
                return
            self._commands.append(command["command"])

    @property
    def commands(self) -> list[str]:
        """As they were sent."""
        return self._commands


def as_bytes(value: Any) -> bytes:
    """A JSON value with its characters as they are."""
    return json.dumps(value, ensure_ascii=False).encode()
