"""`dataDecoded`: calls the service knows the ABI of, the Safe's own and ERC-20's."""

from functools import cache
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import function_abi_to_4byte_selector
from eth_utils.address import to_checksum_address

from sandbox.chain.artifacts import safe_artifact

_ABIS = ("ERC20", "Safe_V1_4_1")


@cache
def _known() -> dict[bytes, dict[str, Any]]:
    return {
        bytes(function_abi_to_4byte_selector(entry)): entry  # type: ignore[arg-type]  # plain JSON of an ABI
        for name in _ABIS
        for entry in safe_artifact(name).abi
        if entry["type"] == "function"
    }


def decode_call(data: bytes) -> dict[str, Any] | None:
    """Return `{method, parameters: [{name, type, value}]}`, or None for a call nobody here knows."""
    entry = _known().get(data[:4])
    if entry is None:
        return None
    inputs = entry["inputs"]
    try:
        values = decode([field["type"] for field in inputs], data[4:])
    except DecodingError:
        return None
    parameters = [
        {"name": field["name"], "type": field["type"], "value": _shown(field["type"], value)}
        for field, value in zip(inputs, values, strict=True)
    ]
    return {"method": entry["name"], "parameters": parameters}


def _shown(kind: str, value: Any) -> Any:  # noqa: ANN401 - as many types as the ABI has
    if kind.endswith("[]"):
        return [_shown(kind[:-2], item) for item in value]
    if kind == "address":
        return to_checksum_address(value)
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, bool) else str(value)
