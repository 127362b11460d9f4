"""Schemathesis against the running API, on a database of its own: ``python -m scripts.fuzz [options of schemathesis]``.

``fuzz.toml`` beside this says which checks are on. Fails when one of them does, or when fewer than ``LEAST`` requests
were made.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sandbox.postgres import EmbeddedPostgres
from sandbox.processes import ManagedProcess, free_port
from sandbox.world import answers

LEAST: Final = 2_000
EXAMPLES: Final = 200
REPORT: Final = Path("var/fuzz")
CONFIGURATION: Final = Path(__file__).with_suffix(".toml")
SECRET: Final = b64encode(bytes(range(32))).decode()
WORKSPACE: Final = {"slug": "fuzz", "phala_api_key": "phak_fuzz", "safes": []}


def _run(environment: Mapping[str, str], *arguments: str, stdin: str = "") -> str:
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.run(  # noqa: S603 - our own command
        command, input=stdin, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _schemathesis(url: str, key: str, options: list[str]) -> int:
    beside = Path(sys.executable).parent
    program = shutil.which("schemathesis", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise SystemExit("schemathesis is not installed: make setup")
    command = [
        program, "--config-file", str(CONFIGURATION), "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--max-examples", str(EXAMPLES), "--continue-on-failure",
        "--report", "ndjson", "--report-dir", str(REPORT), *options,
    ]  # fmt: skip
    REPORT.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - found beside Python
    sys.stdout.write(done.stdout)
    made = max(map(int, re.findall(r"(\d+) generated", done.stdout)), default=0)
    if made < LEAST:
        sys.stderr.write(f"{made} requests are fewer than {LEAST}\n")
        return 1
    return done.returncode


def main(options: list[str]) -> int:
    """Start PostgreSQL and the API, and let schemathesis loose on it; its exit code."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        postgres = EmbeddedPostgres(directory / "postgres", fsync=False).start()
        port = free_port()
        environment = {
            **os.environ,
            "COUNTERSIGN_DATABASE_URL": postgres.ensure_database("fuzz"),
            "COUNTERSIGN_ENCRYPTION_KEYS": json.dumps({"k1": SECRET}),
            "COUNTERSIGN_FINGERPRINT_KEY": SECRET,
            "COUNTERSIGN_API_REQUESTS_PER_MINUTE": "1000000",
            "COUNTERSIGN_API_PORT": str(port),
        }
        url = f"http://127.0.0.1:{port}"
        api = ManagedProcess(
            "api",
            [sys.executable, "-m", "service", "serve"],
            log_path=directory / "api.log",
            ready=answers(f"{url}/readyz"),
            env=environment,
        )
        try:
            _run(environment, "migrate")
            _run(environment, "workspace", "apply", "-", stdin=json.dumps(WORKSPACE))
            made = json.loads(_run(environment, "key", "create", "--workspace", "fuzz", "--scope", "admin"))
            api.start()
            code = _schemathesis(url, made["key"], options)
            sys.stdout.write((directory / "api.log").read_text()[-5000:])
        finally:
            api.stop()
            postgres.destroy()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
