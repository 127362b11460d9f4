"""The body of a submission, put together from files."""

import json
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.client.text import Json

_LONGEST_KEY: Final = 255


class InputError(Exception):
    """An option or a file is not usable; the text names it and never quotes what is in it."""


def new_key() -> str:
    """A random ``Idempotency-Key``."""
    return secrets.token_urlsafe(24)


def idempotency_key(given: str | None) -> str:
    """The key that was given, if a header can carry it, or a random one."""
    if given is None:
        return new_key()
    if not (1 <= len(given) <= _LONGEST_KEY and given.isascii() and given.isprintable() and given == given.strip()):
        raise InputError(f"--idempotency-key must be 1 to {_LONGEST_KEY} printable ASCII characters")
    return given


def text_of(path: Path) -> str:
    """A file as text; ``-`` is standard input."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8") from error


def object_of(path: Path) -> Json:
    """A file that holds one JSON object."""
    try:
        value = json.loads(text_of(path))
        json.dumps(value, allow_nan=False)  # NaN and Infinity are Python's, not JSON's
    except (ValueError, RecursionError):
        # The parser's words may quote the file, and the file may hold a commit token.
        raise InputError(f"{path} is not JSON") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object")
    return value


def metadata_of(given: list[str]) -> Json:
    """``name=value`` texts as an object."""
    pairs = [one.partition("=") for one in given]
    wrong = next((one for one, (name, sign, _) in zip(given, pairs, strict=True) if not (name and sign)), None)
    if wrong is not None:
        raise InputError(f"--metadata {wrong} is not of the form name=value")
    return {name: value for name, _, value in pairs}


def links_of(given: list[str], environment: Mapping[str, str]) -> list[str]:
    """The links that were given; without any those that GitHub Actions tells: commit, pull request, run."""
    if given or environment.get("GITHUB_ACTIONS") != "true":
        return given
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_SHA", "GITHUB_RUN_ID")
    server, repository, commit, run = (environment.get(name, "") for name in names)
    if not (server.startswith("https://") and repository and commit and run):
        return []
    base = f"{server}/{repository}"
    pull = re.fullmatch(r"refs/pull/(\d+)/\w+", environment.get("GITHUB_REF", ""))
    return [f"{base}/commit/{commit}", *([f"{base}/pull/{pull[1]}"] if pull else []), f"{base}/actions/runs/{run}"]


def body(
    *,
    compose: Path | None,
    pre_launch: Path | None,
    allowed_envs: list[str],
    patch: Path | None,
    prepared: Path | None,
    **members: str | int | list[str] | Json | None,
) -> Json:
    """What is posted; members that are None, False or empty are left out."""
    if [compose, pre_launch, patch, prepared].count(Path("-")) > 1:
        raise InputError("only one file can be standard input")
    changes: Json = {} if patch is None else object_of(patch)
    if compose is not None:
        changes["docker_compose_file"] = text_of(compose)
    if pre_launch is not None:
        changes["pre_launch_script"] = text_of(pre_launch)
    if allowed_envs:
        changes["allowed_envs"] = allowed_envs
    if not changes and prepared is None:
        raise InputError("nothing to change: give --compose, --pre-launch, --allowed-env, --patch or --prepared")
    if prepared is None and not members.get("cvm_id"):
        raise InputError("--cvm is missing")
    whole: Json = {name: value for name, value in members.items() if value not in (None, False, [], {})}
    if changes:
        whole["patch"] = changes
    if prepared is not None:
        whole["prepared"] = object_of(prepared)
    return whole
