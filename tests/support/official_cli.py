"""Phala's own command line, as its users run it."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "node_modules" / "phala" / "dist" / "index.js"


class OfficialCli:
    """``phala`` in a directory of its own."""

    def __init__(self, directory: Path, api_url: str, api_key: str) -> None:
        self._directory = directory
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "PHALA_CLOUD_DIR": str(directory / "credentials"),
            "PHALA_CLOUD_API_PREFIX": api_url,
            "PHALA_CLOUD_API_KEY": api_key,
            "PHALA_DISABLE_UPDATE_CHECK": "1",
            "CI": "1",
        }

    def deploy(self, cvm: str, *arguments: str, compose: str | None = None) -> subprocess.CompletedProcess[str]:
        """``phala deploy`` of a CVM with ``--json``; ``compose`` becomes its ``docker-compose.yml``."""
        if compose is not None:
            (self._directory / "docker-compose.yml").write_text(compose)
            arguments = ("-c", "docker-compose.yml", *arguments)
        return subprocess.run(
            ["node", str(SCRIPT), "deploy", "--cvm-id", cvm, *arguments, "--json"],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
