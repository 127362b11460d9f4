"""What the documentation says about settings is what the settings are."""

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from scripts.settings_docs import CHAINS_EXAMPLE, COMPOSE_PASSWORDS, NEEDED, chains_example, env_example, variable
from service.settings import ChainSettings, Settings

ROOT = Path(__file__).resolve().parents[3]


MAY_BE_EMPTY = {"public_url", "otlp_endpoint", "otlp_headers"}
"""Settings without which every process does its work."""


def _without_default(model: type[BaseModel]) -> set[str]:
    return {
        name
        for name, field in model.model_fields.items()
        if field.is_required() or field.get_default(call_default_factory=True) in (None, {})
    } - MAY_BE_EMPTY


def test_every_setting_without_a_default_says_who_needs_it():
    assert set(NEEDED) == _without_default(Settings)


def _assignments(text: str) -> dict[str, str]:
    lines = [line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")]
    return dict(line.split("=", 1) for line in lines if line)


def test_env_example_has_every_variable_and_no_value_where_one_is_needed():
    assignments = _assignments(env_example())
    needed = {variable(name) for name in NEEDED} | set(COMPOSE_PASSWORDS)

    assert set(assignments) == {variable(name) for name in Settings.model_fields} | set(COMPOSE_PASSWORDS)
    assert {name for name, value in assignments.items() if value == ""} == needed | {
        variable("public_url"),
        variable("otlp_endpoint"),
    }


def test_defaults_in_env_example_are_the_defaults(monkeypatch: pytest.MonkeyPatch):
    without = Settings()
    for name, value in _assignments(env_example()).items():
        if value:
            monkeypatch.setenv(name, value)

    assert Settings() == without


def test_the_example_of_chains_is_accepted(monkeypatch: pytest.MonkeyPatch):
    shell = chains_example().removeprefix("```sh\n").removesuffix("\n```")
    name, value = shell.split("=", 1)
    monkeypatch.setenv(name, value.removeprefix("'").removesuffix("'"))

    assert Settings().chains == {
        int(chain_id): ChainSettings.model_validate(chain) for chain_id, chain in CHAINS_EXAMPLE.items()
    }
    assert json.loads(value.strip("'")) == CHAINS_EXAMPLE


def test_env_example_is_what_compose_reads():
    compose = (ROOT / "docker-compose.yml").read_text()

    assert all(f"${{{name}:?" in compose for name in COMPOSE_PASSWORDS)
