"""The rows of the sandbox as typed records, and how they are found."""

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from sandbox.phala_cloud.database import Database


@dataclass(frozen=True)
class Workspace:
    """A tenant; `slug` is its id in webhooks and console addresses."""

    id: int
    hashed_id: str
    slug: str
    name: str
    user_hashed_id: str
    username: str


@dataclass(frozen=True)
class Kms:
    """A key management service; without `chain_id` it is off chain and asks no contract."""

    id: int
    hashed_id: str
    slug: str
    kms_type: str
    version: str
    chain_id: int | None
    contract_address: str | None
    gateway_app_id: str | None
    seed: bytes

    def __repr__(self) -> str:
        """Without the seed, from which its keys derive."""
        return f"Kms({self.slug})"

    @property
    def url(self) -> str:
        """Where the KMS would answer."""
        return f"https://{self.slug}.sandbox.invalid"


@dataclass(frozen=True)
class Cvm:
    """A CVM. `compose` is what is configured, `running_compose` what booted (None while nothing runs)."""

    id: int
    workspace_id: int
    kms_id: int
    hashed_id: str
    vm_uuid: str
    name: str
    app_id: str
    instance_id: str | None
    node_instance_id: str
    device_id: str
    node_id: int
    node_name: str
    status: str
    boot_progress: str | None
    boot_error: str | None
    compose: str
    compose_hash: str
    running_compose: str | None
    running_since: float | None
    exited_at: float | None
    vcpu: int
    memory: int
    disk_size: int
    image: str
    instance_type: str
    gpus: str | None
    user_config: str
    encrypted_env: str
    shutdown_timeout: int | None
    allow_force_stop: int
    listed: int
    created_at: float
    updated_at: float

    @property
    def document(self) -> dict[str, Any]:
        """The configured app-compose."""
        document: dict[str, Any] = json.loads(self.compose)
        return document

    @property
    def app_address(self) -> str:
        """The app contract, 0x-prefixed and lower case."""
        return f"0x{self.app_id}"


@dataclass(frozen=True)
class Operation:
    """One operation on a CVM, followed from outside by its correlation id."""

    id: int
    cvm_id: int
    correlation_id: str
    operation_type: str
    status: str
    phase: str
    target_state: str
    compose: str | None
    compose_hash: str | None
    members: str
    mishap: str | None
    mishap_detail: str | None
    started_at: float
    due_at: float | None
    completed_at: float | None
    error_message: str | None
    triggered_by: int
    instance_name: str
    events: str


@dataclass(frozen=True)
class Prepare:
    """A compose the server remembers for 14 days: with a token (prepare-only), or recalled by its hash."""

    id: int
    cvm_id: int
    token_sha256: str | None
    compose: str
    compose_hash: str
    base_hash: str
    members: str
    source: str
    created_at: float
    expires_at: float
    superseded_at: float | None
    spent_at: float | None


def sha256_hex(text: str) -> str:
    """How credentials are kept: never in clear."""
    return hashlib.sha256(text.encode()).hexdigest()


def cvm_from(row: sqlite3.Row) -> Cvm:
    """A row of `cvms`."""
    return Cvm(**dict(row))


def operation_from(row: sqlite3.Row) -> Operation:
    """A row of `operations`."""
    return Operation(**dict(row))


def cvm_by_id(database: Database, cvm_id: int) -> Cvm:
    """The CVM of this row id, which must exist."""
    row = database.one("SELECT * FROM cvms WHERE id = ?", cvm_id)
    if row is None:
        raise LookupError(f"no CVM row {cvm_id}")
    return cvm_from(row)


def kms_by_id(database: Database, kms_id: int) -> Kms:
    """The KMS of this row id, which must exist."""
    row = database.one("SELECT * FROM kms WHERE id = ?", kms_id)
    if row is None:
        raise LookupError(f"no KMS row {kms_id}")
    return Kms(**dict(row))


def workspace_by_id(database: Database, workspace_id: int) -> Workspace:
    """The workspace of this row id, which must exist."""
    row = database.one("SELECT * FROM workspaces WHERE id = ?", workspace_id)
    if row is None:
        raise LookupError(f"no workspace row {workspace_id}")
    return Workspace(**dict(row))


def workspace_by_api_key(database: Database, api_key: str) -> Workspace | None:
    """The workspace an API key belongs to."""
    row = database.one(
        "SELECT w.* FROM workspaces w JOIN api_keys k ON k.workspace_id = w.id WHERE k.key_sha256 = ?",
        sha256_hex(api_key),
    )
    return None if row is None else Workspace(**dict(row))


def prepare_by_token(database: Database, token: str) -> Prepare | None:
    """What a commit token stands for, whether it still counts or not."""
    row = database.one("SELECT * FROM prepares WHERE token_sha256 = ?", sha256_hex(token))
    return None if row is None else Prepare(**dict(row))


def running_operation(database: Database, cvm_id: int) -> Operation | None:
    """The operation that keeps this CVM busy, if any."""
    row = database.one("SELECT * FROM operations WHERE cvm_id = ? AND status = 'in_progress'", cvm_id)
    return None if row is None else operation_from(row)
