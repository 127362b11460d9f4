"""The command line carries a change the whole way, as a CI job would."""

import subprocess
from pathlib import Path

from tests.support.command import Command
from tests.support.stack import Stack, compose, first_cvm


def _submitted(stack: Stack, file: Path, tag: str) -> tuple[subprocess.Popen[str], str]:
    file.write_text(compose(tag))
    command = Command(stack.deployment.url, stack.deployment.api_key)
    words = ("submit", "--cvm", first_cvm(stack.world.add_app()), "-c", str(file), "--wait", "--timeout", "120")
    process = command.start(*words)
    assert process.stderr is not None
    return process, process.stderr.readline().removeprefix("submitted ").strip()


def test_a_submission_that_waits_ends_with_the_cvm_that_runs_it(stack: Stack, tmp_path: Path):
    process, request_id = _submitted(stack, tmp_path / "compose.yml", "command line")
    with process:
        stack.approve(request_id)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "\n  approval seen: " in err
    assert "\ncompleted: " in err
    assert out.startswith(f"{request_id}  completed ")


def test_a_rejected_submission_ends_with_its_code(stack: Stack, tmp_path: Path):
    process, request_id = _submitted(stack, tmp_path / "compose.yml", "command line, rejected")
    with process:
        stack.wait_for(request_id, "proposed")
        stack.reject(request_id)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "\nrejected: " in err
    assert out.startswith(f"{request_id}  rejected ")
