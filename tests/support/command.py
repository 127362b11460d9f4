"""The ``countersign`` command as its users run it: a process with an environment."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """The command with the address of an API and a key."""

    url: str
    key: str

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it; both outputs and its input are pipes."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")}
        env |= {"COUNTERSIGN_URL": self.url, "COUNTERSIGN_API_KEY": self.key, "NO_PROXY": "127.0.0.1"}
        pipe = subprocess.PIPE
        words = (sys.executable, "-m", "service", *words)
        return subprocess.Popen(words, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str, given: str = "", ends: int = 0) -> tuple[str, str]:
        """What it wrote to standard output and standard error."""
        with self.start(*words) as process:
            out, err = process.communicate(given, timeout=60)
        assert process.returncode == ends, (process.returncode, out, err)
        return out, err

    def json(self, *words: str, given: str = "", ends: int = 0) -> Any:
        """The one document that it wrote."""
        return json.loads(self.run(*words, "--json", given=given, ends=ends)[0])
