"""Everything a request or a background thread needs, in one place."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.phala_cloud.chain import ChainView
from sandbox.phala_cloud.database import Database
from sandbox.phala_cloud.loops import Loop
from sandbox.phala_cloud.settings import Clock, SettingsStore


@dataclass
class World:
    """The sandbox's state, its clock, its view of the chain, and the threads that move it on."""

    database: Database
    settings: SettingsStore
    clock: Clock
    chain: ChainView
    loops: list[Loop] = field(default_factory=list)

    @classmethod
    def open(cls, database_path: Path, rpc_url: str | None) -> "World":
        """Open or create the state at this path."""
        database = Database(database_path)
        settings = SettingsStore(database)
        return cls(database, settings, Clock(settings), ChainView(rpc_url, settings))

    def ring(self) -> None:
        """Tell the background threads that something may be due."""
        for loop in self.loops:
            loop.ring()

    def record(self, kind: str, vm_uuid: str | None, **data: object) -> None:
        """Add a line to the ledger. Callers never pass a token or a secret."""
        self.database.insert(
            "ledger",
            at=self.clock.now(),
            kind=kind,
            vm_uuid=vm_uuid,
            data=json.dumps(data),
        )

    def ledger(self, kind: str | None, vm_uuid: str | None) -> list[dict[str, Any]]:
        """The ledger, oldest first, narrowed to a kind and a CVM if given."""
        rows = self.database.all(
            "SELECT * FROM ledger WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR vm_uuid = ?2) ORDER BY seq",
            kind,
            vm_uuid,
        )
        return [
            {"seq": row["seq"], "at": row["at"], "kind": row["kind"], "vm_uuid": row["vm_uuid"]}
            | json.loads(row["data"])
            for row in rows
        ]

    def close(self) -> None:
        """Stop the threads, then close what they used."""
        for loop in self.loops:
            loop.stop()
        self.chain.close()
        self.database.close()
