"""Processes of the service on a test's own database and broker, as a supervisor runs them."""

import json
import os
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

from sandbox.processes import ManagedProcess
from service.store.database import Database
from tests.support import rows

NOWHERE = "http://127.0.0.1:1"


def environment(database: Database, redis_url: str, **settings: str) -> dict[str, str]:
    """Variables by which a process opens what ``rows`` sealed; ``settings`` are more, without their prefix."""
    key, fingerprint = (b64encode(text.encode().ljust(32, b"-")).decode() for text in ("k1", "fingerprints"))
    chain = {"name": "anvil", "rpc_urls": [NOWHERE], "safe_service_url": NOWHERE}
    ours = {
        "database_url": database.engine.url.render_as_string(hide_password=False),
        "redis_url": redis_url,
        "encryption_keys": json.dumps({"k1": key}),
        "fingerprint_key": fingerprint,
        "proposer_key": "11" * 32,
        "chains": json.dumps({str(rows.CHAIN_ID): chain}),
        "worker_threads": "4",
        **settings,
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
    return others | {f"COUNTERSIGN_{name.upper()}": value for name, value in ours.items()}


def process(
    directory: Path, command: str, env: dict[str, str], *, ready: Callable[[str], bool], called: str | None = None
) -> ManagedProcess:
    """A process of the command, not started; ``ready`` is asked about what it wrote."""
    log = directory / f"{called or command}.log"
    return ManagedProcess(
        called or command,
        [sys.executable, "-m", "service", command],
        log_path=log,
        ready=lambda: ready(log.read_text()),
        ready_seconds=60,
        env=env,
    )
