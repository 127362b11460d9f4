"""The import contracts say what the room plan says: every pair of rooms is tried, on a skeleton of the project."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]

PACKAGES = (
    "service.domain",
    "service.phala",
    "service.steps",
    "service.store",
    "service.adapters",
    "service.api",
    "service.client",
    "service.commands",
    "workers",
    "migrations",
    "sandbox",
)
MODULES = (
    "service.ports",
    "service.settings",
    "service.wiring",
    "service.cli",
    "service.workspace_file",
    "service.logs",
)
PARTS = ("service.phala.compose_hash", "service.phala.webhooks", "service.phala.errors")
LIBRARIES = ("sqlalchemy", "alembic", "web3", "safe_eth", "fastapi", "starlette", "celery", "kombu", "time", "random")

DOMAIN = "service.domain"
EVERYWHERE = {"time", "random"}
MAY_IMPORT = {
    "service.domain": set(),
    "service.phala": EVERYWHERE,
    "service.ports": {DOMAIN},
    "service.steps": {DOMAIN, "service.ports", "service.phala.compose_hash"},
    "service.store": {DOMAIN, "migrations", "sqlalchemy", "alembic", *EVERYWHERE},
    "service.adapters": {
        DOMAIN, "service.ports", "service.phala", *PARTS, "web3", "safe_eth", *EVERYWHERE,
    },
    "service.settings": {DOMAIN, *EVERYWHERE},
    "service.wiring": {
        DOMAIN, "service.ports", "service.settings", "service.store", "service.adapters", "service.phala", *PARTS,
        *EVERYWHERE,
    },
    "service.api": {
        DOMAIN, "service.store", "service.wiring", "service.phala.webhooks", "fastapi", "starlette", *EVERYWHERE,
    },
    "workers": {
        DOMAIN, "service.ports", "service.settings", "service.steps", "service.store", "service.wiring", "celery",
        "kombu", *EVERYWHERE,
    },
    "migrations": {DOMAIN, "service.store", "sqlalchemy", "alembic", *EVERYWHERE},
    "sandbox": {DOMAIN, *PARTS, "fastapi", "starlette", "web3", "safe_eth", *EVERYWHERE},
    "service.workspace_file": {DOMAIN, "service.settings", "service.store", *EVERYWHERE},
    "service.commands": {DOMAIN, "service.settings", "service.store", *EVERYWHERE},
    "service.client": EVERYWHERE,
    "service.logs": {DOMAIN, *EVERYWHERE},
    "service.cli": {*PACKAGES, *MODULES, *PARTS, *EVERYWHERE},
}  # fmt: skip


def test_every_import_that_the_room_plan_does_not_allow_is_refused(tmp_path: Path):
    wanted = {
        (importer, imported)
        for importer, allowed in MAY_IMPORT.items()
        for imported in (*PACKAGES, *MODULES, *PARTS, *LIBRARIES)
        if imported not in allowed and not _is_inside(imported, importer)
    }

    assert _refused(_skeleton(tmp_path)) == wanted


def test_every_room_of_the_project_is_in_the_plan():
    service = PROJECT / "service"
    found = {f"service.{p.stem}" for p in service.glob("*.py") if p.name != "__init__.py"}
    found |= {f"service.{p.parent.name}" for p in service.glob("*/__init__.py")}

    assert found - {"service.__main__"} <= set(MAY_IMPORT)


def _is_inside(imported: str, importer: str) -> bool:
    return f"{imported}.".startswith(f"{importer}.")


def _skeleton(root: Path) -> Path:
    """Lay out rooms of which each imports every other one and every library."""
    for package in ("service", *PACKAGES):
        folder = root.joinpath(*package.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    for part in (*PARTS, "service.__main__"):
        root.joinpath(*part.split(".")).with_suffix(".py").touch()
    for importer in MAY_IMPORT:
        imports = [
            f"import {imported}\n"
            for imported in (*PACKAGES, *MODULES, *PARTS, *LIBRARIES)
            if not _is_inside(imported, importer)
        ]
        place = root.joinpath(*importer.split("."))
        file = place.with_suffix(".py") if importer in MODULES else place / "probe.py"
        file.write_text("".join(imports))
    return root


def _refused(root: Path) -> set[tuple[str, str]]:
    """Lint the skeleton by the project's contracts and return the (importer, imported) pairs that broke one."""
    (root / "pyproject.toml").write_bytes((PROJECT / "pyproject.toml").read_bytes())
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=root, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    pairs = re.findall(r"(\S+) -> (\S+) \(l", done.stdout)
    return {(importer.removesuffix(".probe"), imported) for importer, imported in pairs}


def test_the_linted_roots_are_the_packages_that_are_shipped():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]

    shipped = project["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(project["importlinter"]["root_packages"]) == set(shipped)
