"""The Dockerfile agrees with the server, and its entry point turns the environment into options."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.__main__ import serve
from server.gate import READY
from tests.deploy.descriptions import DEPLOY, ROOT, instructions, manifest

PORT = inspect.signature(serve).parameters["port"].default


def test_health_is_readiness_on_the_port_that_is_exposed() -> None:
    (check,) = instructions("HEALTHCHECK")
    assert f"http://127.0.0.1:{PORT}{READY}" in check
    assert instructions("EXPOSE") == [str(PORT)]


def test_both_targets_end_as_a_user_that_is_not_root() -> None:
    for target in ("cpu", "gpu"):
        user = [*instructions("USER", "serving"), *instructions("USER", target)][-1]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_only_what_is_named_is_in_the_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    named = [line[1:] for line in lines if line.startswith("!")]
    assert all((ROOT / path).exists() for path in named)
    rooms = {"malmoi", "train", "quant", "server"}
    assert rooms <= set(named)
    assert not any(path.startswith((".", "build", "tests/support")) for path in named)


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        pytest.param({}, ["/models/m"], ["/models/m"], id="plain"),
        pytest.param(
            {"MALMOI_SERVE_MAX_RUNNING": "4", "MALMOI_SERVE_KEYS": "/keys/a b.json"},
            ["/models/m", "--name", "n", "--", "--seed=1"],
            ["--keys", "/keys/a b.json", "--max-running", "4", "/models/m", "--name", "n", "--", "--seed=1"],
            id="values",
        ),
        pytest.param(
            {"MALMOI_SERVE_STRICT": "true", "MALMOI_SERVE_SHORT_LIVED": "false"},
            ["/models/m"],
            ["--no-short-lived", "--strict", "/models/m"],
            id="flags",
        ),
        pytest.param({"MALMOI_LOGGING_LEVEL": "DEBUG"}, ["/models/m"], ["/models/m"], id="not an option"),
    ],
)
def test_environment_becomes_options(
    tmp_path: Path, environment: dict[str, str], arguments: list[str], expected: list[str]
) -> None:
    assert run_entrypoint(tmp_path, environment, arguments) == ["--host", "0.0.0.0", "--open-to-all", *expected]


def test_another_port_inside_the_container_is_refused(tmp_path: Path) -> None:
    script = DEPLOY / "image" / "entrypoint.sh"
    environment = {"PATH": os.environ["PATH"], "MALMOI_SERVE_PORT": "9000"}
    done = subprocess.run(
        ["sh", str(script), "/models/m"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: MALMOI_SERVE_PORT: expected none in a container")
    assert done.stderr.endswith("publish another port: -p 9000:8000\n")


def test_keys_are_made_without_options_of_serving(tmp_path: Path) -> None:
    arguments = ["keys", "add", "/keys/keys.json", "me"]
    assert run_entrypoint(tmp_path, {"MALMOI_SERVE_KEYS": "/keys/keys.json"}, arguments) == arguments


def test_options_that_are_named_here_exist() -> None:
    """Those of the entry point, the Kubernetes container and the manual, in the help of malmoi-serve."""
    help_text = subprocess.run(
        [sys.executable, "-m", "server", "--help"], capture_output=True, text=True, check=True
    ).stdout
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    text = (ROOT / "docs" / "docker.md").read_text() + (DEPLOY / "image" / "entrypoint.sh").read_text()
    text += " ".join(entry["name"] for entry in container["env"])
    variables = set(re.findall(r"MALMOI_SERVE_([A-Z_]*[A-Z])\b", text)) - {"X_Y"}
    assert {"KEYS", "MAX_RUNNING", "MAX_WAITING", "STRICT"} <= variables
    options = {"--" + name.lower().replace("_", "-") for name in variables} | {"--host", "--open-to-all"}
    assert options <= set(re.findall(r"--[a-z-]+", help_text))


def test_files_that_the_manual_names_are_there() -> None:
    named = re.findall(
        r"`?((?:deploy|benchmarks|tests)/[\w./*-]+\w)", (ROOT / "docs" / "docker.md").read_text()
    )
    assert len(named) > 5
    assert not [path for path in named if not any(ROOT.glob(path))]


def run_entrypoint(folder: Path, environment: dict[str, str], arguments: list[str]) -> list[str]:
    """The arguments that the entry point starts malmoi-serve with, for which a script stands in."""
    stand_in = folder / "malmoi-serve"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    path = os.pathsep.join([str(folder), "/usr/bin", "/bin"])
    script = DEPLOY / "image" / "entrypoint.sh"
    done = subprocess.run(
        [str(script), *arguments], env=environment | {"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()
