"""Running the official JavaScript packages."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run_node(script: str, given: Any) -> Any:
    """Run a script of this folder with JSON on standard input and return the JSON it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PHALA_")}
    done = subprocess.run(
        ["node", HERE / script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
