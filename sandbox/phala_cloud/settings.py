"""What the person at the controls can turn while the sandbox runs, and the clock it all happens by."""

import time
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field

from sandbox.phala_cloud.database import Database


class Settings(BaseModel):
    """Durations are seconds of the sandbox's clock unless a field says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clock_offset: float = 0.0
    """Seconds added to the machine's time to give the sandbox's time."""
    accept_seconds: float = Field(default=0.1, ge=0)
    """From accepting an operation until the CVM goes down; it still runs the old compose meanwhile."""
    restart_seconds: float = Field(default=0.3, ge=0)
    """From going down until the KMS is asked whether the CVM may boot."""
    state_lag_blocks: int = Field(default=0, ge=0)
    """How many blocks behind the head contract state is read."""
    receipt_lag_blocks: int = Field(default=0, ge=0)
    """How many blocks behind the head receipts become visible."""
    resign_retries: bool = True
    """Whether a repeated webhook delivery carries a fresh timestamp. Phala does not say which it does."""
    stream_time_scale: float = Field(default=1.0, gt=0)
    """Real seconds per second of `interval` and `timeout` on the event stream of a CVM's state."""


class SettingsStore:
    """Settings kept in the database, of which this process is the only user."""

    def __init__(self, database: Database) -> None:
        self._database = database
        row = database.one("SELECT value FROM settings WHERE key = 'settings'")
        self._current = Settings() if row is None else Settings.model_validate_json(row["value"])

    def get(self) -> Settings:
        """The settings now in force."""
        return self._current

    def change(self, **changes: float | bool) -> Settings:
        """Set some members, keep the others.

        Raises:
            pydantic.ValidationError: an unknown member or a value out of range; nothing is changed.
        """
        with self._database.transaction():
            settings = Settings.model_validate(self._current.model_dump() | changes)
            self._database.run(
                "INSERT INTO settings VALUES ('settings', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                settings.model_dump_json(),
            )
            self._current = settings
        return settings


class Clock:
    """The machine's time plus a settable offset."""

    def __init__(self, settings: SettingsStore) -> None:
        self._settings = settings

    def now(self) -> float:
        """Epoch seconds of the sandbox."""
        return time.time() + self._settings.get().clock_offset


def iso(epoch_seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds and a trailing Z, as Phala's webhooks write it."""
    moment = datetime.fromtimestamp(epoch_seconds, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
