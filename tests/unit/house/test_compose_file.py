"""docker-compose.yml and the Dockerfile, as far as they can be held to account without a Docker engine."""

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from service.cli import app
from service.settings import PREFIX, Settings

PROJECT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("command", [""])[0] == "countersign"}
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
LONG_RUNNING = ("api", "worker", "beat", "watch")


def test_it_is_a_compose_file():
    schema = importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"

    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))


def test_all_parts_are_there():
    assert set(SERVICES) == {"migrate", *LONG_RUNNING, "postgres", "redis", "sandbox"}
    assert set(OURS) == {"migrate", *LONG_RUNNING, "sandbox"}
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["sandbox"]


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_a_real_one(name: str):
    run = CliRunner().invoke(app, [*OURS[name]["command"][1:], "--help"])

    assert run.exit_code == 0, run.output


def test_a_command_that_is_none_is_told_from_a_real_one():
    assert CliRunner().invoke(app, ["no-such-command", "--help"]).exit_code != 0


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_nothing_starts_before_the_migrations_have_run(name: str):
    assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_what_others_wait_for_or_ask_has_a_health_check():
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == {
        "api",
        "worker",
        "postgres",
        "redis",
    }


def test_every_setting_it_names_is_one():
    named = {variable for service in OURS.values() for variable in service.get("environment", {})}

    assert named
    assert {variable.removeprefix(PREFIX).lower() for variable in named} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_nobody_is_killed_before_it_has_ended_by_itself(name: str):
    seconds = int(OURS[name]["stop_grace_period"].removesuffix("s"))

    assert seconds >= Settings.model_fields["stop_seconds"].default + 10


def test_metrics_are_not_published():
    published = [port for service in OURS.values() for port in service.get("ports", [])]

    assert published == ["127.0.0.1:8080:8080"]
    assert OURS["api"]["environment"]["COUNTERSIGN_METRICS_PORT"] == "9100"


def test_no_secret_stands_in_the_file():
    values = [
        (variable, value)
        for service in SERVICES.values()
        for variable, value in service.get("environment", {}).items()
        if re.search("PASSWORD|KEY|SECRET|TOKEN|AUTH|_URL", variable)
    ]

    assert values
    for variable, value in values:
        assert value == "" or re.search(r"\$\{[A-Z_]+:\?[^}]+\}", value), variable


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_ours_run_as_an_ordinary_user_without_privileges(service: dict[str, Any]):
    stage = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    target = next(part for part in stage if part.split("\n")[0].endswith(f" AS {service['build']['target']}"))

    assert re.findall(r"^USER (\w+)$", target, flags=re.MULTILINE) == ["countersign"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    assert "privileged" not in service


def test_the_image_takes_in_what_there_is_and_only_that():
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    admitted = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for arguments in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for source in arguments.split()[:-1]
    }

    assert "*" in ignored
    assert {source.split("/")[0] for source in copied} == admitted
    for source in copied:
        assert (PROJECT / source).exists(), source
