"""The recorded calls of the official SDK, in the terms of this client."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

UNDEFINED = {"$undefined": True}
VECTORS = Path(__file__).parents[2] / "vectors" / "phala"


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return loaded


def expand(value: Any) -> Any:
    """Replace the markers of the vector files by what they stand for."""
    if value == UNDEFINED:
        return None
    if isinstance(value, dict):
        if "$repeat" in value:
            text, times = value["$repeat"]
            return text * times
        return {name: expand(item) for name, item in value.items() if item != UNDEFINED}
    if isinstance(value, list):
        return [expand(item) for item in value]
    return value


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where our reading of an answer lacks or contradicts a member of the SDK's. More than that may be in ours."""
    if isinstance(ours, SecretStr):
        ours = ours.get_secret_value()
    if isinstance(theirs, dict):
        found = []
        for name, item in theirs.items():
            if name == "chain" or item in ({"$function": True}, "$function"):
                continue  # an object of a chain library, and methods: no facts of the answer
            mine = ours.get(snake(name), ours.get(name)) if isinstance(ours, dict) else getattr(ours, snake(name), None)
            found += differences(mine, item, f"{where}.{name}")
        return found
    if isinstance(theirs, list):
        if not isinstance(ours, list | tuple) or len(ours) != len(theirs):
            return [f"{where}: {ours!r} is not {theirs!r}"]
        return [text for i, item in enumerate(theirs) for text in differences(ours[i], item, f"{where}[{i}]")]
    if isinstance(ours, BaseModel) or ours != theirs:
        return [f"{where}: {ours!r} is not {theirs!r}"]
    return []
