"""Compiled contracts: ours (sandbox/contracts/artifacts) and the Safe contracts that safe-eth-py carries."""

import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

_OURS = Path(__file__).resolve().parents[1] / "contracts" / "artifacts"


class Artifact(NamedTuple):
    """A compiled contract: its ABI and its creation and runtime bytecode."""

    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes


@cache
def artifact(name: str) -> Artifact:
    """Return one of our contracts: DstackApp, DstackAppV1, ERC1967Proxy or TimelockController."""
    return _load(_OURS / f"{name}.json")


@cache
def safe_artifact(name: str) -> Artifact:
    """Return a contract of safe-eth-py by file name (`Safe_V1_4_1`) without importing it, which takes 1 s."""
    located = metadata.distribution("safe-eth-py").locate_file(f"safe_eth/eth/contracts/abis/{name}.json")
    return _load(Path(str(located)))


def _load(path: Path) -> Artifact:
    content = json.loads(path.read_text())
    return Artifact(
        content["abi"], bytes.fromhex(content["bytecode"][2:]), bytes.fromhex(content["deployedBytecode"][2:])
    )
