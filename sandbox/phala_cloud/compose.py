"""App-compose documents: what the server fills in, how a change is applied, and the hash of the result."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import yaml

from sandbox.phala_cloud import errors
from sandbox.phala_cloud.errors import Json
from service.phala.compose_hash import canonical_app_compose
from service.phala.errors import InvalidArgument

MAX_TEXT_BYTES = 204_800
"""UTF-8 bytes of the Docker Compose file and the pre-launch script together."""

_SERVER_MEMBERS: Json = {
    "manifest_version": 2,
    "runner": "docker-compose",
    "features": ["kms", "tproxy-net"],
    "kms_enabled": True,
    "gateway_enabled": True,
    "tproxy_enabled": True,
    "local_key_provider_enabled": False,
    "no_instance_id": False,
    "secure_time": False,
    "storage_fs": "zfs",
    "public_logs": True,
    "public_sysinfo": True,
    "public_tcbinfo": True,
    "allowed_envs": [],
    "pre_launch_script": "",
}


@dataclass(frozen=True)
class Update:
    """What a CVM shall boot with: the canonical app-compose, and columns of the CVM to set with it."""

    text: str
    members: Json = field(default_factory=dict)

    @property
    def compose_hash(self) -> str:
        """64 lower-case hex digits, no 0x."""
        return hash_of(self.text)


def complete(document: Json, name: str) -> Json:
    """The document with every member the server fills in; members given stay as they are."""
    given = {key: value for key, value in document.items() if value is not None or key == "salt"}
    completed: Json = {**_SERVER_MEMBERS, **given}
    completed["name"] = given.get("name") or name
    return completed


def canonical(document: Json) -> str:
    """The exact text that is handed to the CVM: the compact form.

    Raises:
        ApiError: 422 for a document whose hash would be ambiguous.
    """
    try:
        return canonical_app_compose(document)
    except InvalidArgument as error:
        raise errors.compose_invalid(str(error)) from error


def hash_of(text: str) -> str:
    """64 lower-case hex digits, no 0x."""
    return hashlib.sha256(text.encode()).hexdigest()


def validate(document: Json) -> None:
    """Refuse what could not be deployed.

    Raises:
        ApiError: 400 for an empty compose file, 422 ERR-01-003 for one that is too large or does not parse.
    """
    compose_file = document.get("docker_compose_file")
    if not isinstance(compose_file, str) or not compose_file.strip():
        raise errors.bad_request("The Docker Compose file is empty", "docker_compose_file")
    script = document.get("pre_launch_script") or ""
    size = len(compose_file.encode()) + len(str(script).encode())
    if size > MAX_TEXT_BYTES:
        raise errors.compose_invalid(f"{size} bytes with the pre-launch script, limit {MAX_TEXT_BYTES}")
    services = _parse(compose_file).get("services")
    if not isinstance(services, dict):
        raise errors.compose_invalid("services must be a mapping")


def _parse(compose_file: str) -> dict[str, Any]:
    try:
        parsed = yaml.load(compose_file, Loader=yaml.CSafeLoader)  # the C twin of safe_load, five times faster
    except yaml.YAMLError as error:
        raise errors.compose_invalid(str(error)) from error
    if not isinstance(parsed, dict):
        raise errors.compose_invalid("top level must be a mapping")
    return parsed
