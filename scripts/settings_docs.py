"""Tables of the settings, and ``.env.example``, from ``service.settings``."""

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic.fields import FieldInfo

from scripts.markdown import code, fenced, table
from service.settings import PREFIX, ChainSettings, Settings

KEY_COMMAND: Final = "openssl rand -base64 32"


@dataclass(frozen=True, slots=True)
class Needed:
    """A setting that has no default.

    Attributes:
        by: commands that refuse to start without it.
        form: what a value looks like; never a real one.
        made_by: shell command that makes the secret part, ``None`` where somebody else hands it out.
    """

    by: tuple[str, ...]
    form: str
    made_by: str | None = None


NEEDED: Final[dict[str, Needed]] = {
    "database_url": Needed(
        ("serve", "worker", "watch", "migrate", "workspace apply", "key", "secrets rotate", "audit"),
        "postgresql://countersign:<password>@db.internal:5432/countersign",
    ),
    "redis_url": Needed(("worker", "beat", "watch"), "redis://:<password>@redis.internal:6379/0"),
    "encryption_keys": Needed(
        ("serve", "worker", "watch", "workspace apply", "key", "secrets rotate", "audit"),
        '{"k1": "<key>"}',
        KEY_COMMAND,
    ),
    "fingerprint_key": Needed(
        ("serve", "worker", "watch", "workspace apply", "key", "secrets rotate", "audit"), "<key>", KEY_COMMAND
    ),
    "proposer_key": Needed(("worker",), "<64 hex digits>", "openssl rand -hex 32"),
    "chains": Needed(("worker", "watch"), '{"8453": {"name": "base", ...}}, see docs/settings.md'),
}
"""Every setting without a usable default, by field name; a unit test holds it to the fields and to the wiring."""

CHAINS_EXAMPLE: Final[dict[str, dict[str, Any]]] = {
    "8453": {
        "name": "base",
        "rpc_urls": ["https://base.rpc.example/<key>", "https://base.other.example/<key>", "https://mainnet.base.org"],
        "ws_url": "wss://base.rpc.example/<key>",
        "finality": "finalized",
        "safe_service_url": "https://api.safe.global/tx-service/base",
        "safe_service_api_key": "<key>",
        "explorer_url": "https://basescan.org",
    }
}


COMPOSE_PASSWORDS: Final = ("POSTGRES_PASSWORD", "REDIS_PASSWORD")
"""What docker-compose.yml takes from the same file, to make the URLs of its own servers."""


def variable(field: str) -> str:
    """The environment variable of a field."""
    return PREFIX + field.upper()


def settings_table() -> str:
    """Markdown: every variable with its default and what it is for."""
    rows = [
        (code(variable(name)), _default(name, field), _what(field)) for name, field in Settings.model_fields.items()
    ]
    return table(("Variable", "Default", "What"), rows)


def needed_table() -> str:
    """Markdown: which command refuses to start without which variable, and how to make its value."""
    rows = [
        (code(variable(name)), ", ".join(map(code, needed.by)), code(needed.made_by) if needed.made_by else "")
        for name, needed in NEEDED.items()
    ]
    return table(("Variable", "Needed by", "Make the key with"), rows)


def chain_table() -> str:
    """Markdown: the members of one chain in ``COUNTERSIGN_CHAINS``."""
    rows = [
        (code(name), "required" if field.is_required() else _literal(field.default), _what(field))
        for name, field in ChainSettings.model_fields.items()
    ]
    return table(("Member", "Default", "What"), rows)


def chains_example() -> str:
    """Markdown: a complete value of ``COUNTERSIGN_CHAINS``, in the quotes a shell and an env file need."""
    value = json.dumps(CHAINS_EXAMPLE, indent=2)
    return fenced("sh", f"{variable('chains')}='{value}'")


def env_example() -> str:
    """The text of ``.env.example``."""
    head = [
        "# Settings of Countersign; docs/settings.md explains them. Copy this file to .env and fill in what is empty.",
        "# Put JSON values between single quotes. Never commit the copy.",
    ]
    blocks = [_env_block(name, field) for name, field in Settings.model_fields.items()]
    passwords = [
        "# Only for docker-compose.yml, which sets the URLs of the database and of Redis itself. Letters and digits.",
        "# Make each with: openssl rand -hex 24",
        *(f"{name}=" for name in COMPOSE_PASSWORDS),
    ]
    return "\n\n".join(("\n".join(head), *blocks, "\n".join(passwords))) + "\n"


def _env_block(name: str, field: FieldInfo) -> str:
    lines = [f"# {_what(field)}"]
    needed = NEEDED.get(name)
    if needed is None:
        lines.append(f"#{variable(name)}={field.default}")
        return "\n".join(lines)
    lines.append(f"# Needed by: {', '.join(needed.by)}")
    lines.append(f"# Form: {needed.form}")
    if needed.made_by:
        lines.append(f"# Make the key with: {needed.made_by}")
    lines.append(f"{variable(name)}=")
    return "\n".join(lines)


def _default(name: str, field: FieldInfo) -> str:
    return "none" if name in NEEDED else _literal(field.default)


def _literal(default: object) -> str:
    return "none" if default in (None, "") else code(str(default))


def _what(field: FieldInfo) -> str:
    if not field.description:
        raise ValueError("every setting has a description")
    return field.description
