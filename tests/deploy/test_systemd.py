"""The unit is one that systemd understands whole, confined, and fits the server."""

import configparser
import inspect
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from malmoi.errors import EngineError, MalmoiError
from server.__main__ import serve
from server.loop import LINGER_S
from tests.deploy.descriptions import DEPLOY

UNIT = DEPLOY / "systemd" / "malmoi-serve.service"
SETTINGS = DEPLOY / "systemd" / "serve.env"
COMMAND = "/opt/malmoi/bin/malmoi-serve"
MOST_EXPOSED = 40
"""Of 100; 50 and more is what systemd calls medium."""
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze (apt-get install systemd)"
)


def analyze(unit: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["systemd-analyze", "--man=no", *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a command that is installed here."""
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(COMMAND) == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(COMMAND, "/bin/true"))
    return copy


@needs_systemd
def test_systemd_understands_every_line(unit: Path) -> None:
    done = analyze(unit, "verify")
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectClock", "ProtectClok"))
    assert "ProtectClok" in analyze(unit, "verify").stderr, "what is misspelt is seen"


@needs_systemd
def test_it_is_confined(unit: Path) -> None:
    done = analyze(unit, "security", "--offline=yes", f"--threshold={MOST_EXPOSED}")
    assert done.returncode == 0, done.stdout
    assert analyze(unit, "security", "--offline=yes", "--threshold=0").returncode != 0, "it is measured"


def test_it_is_given_time_to_drain_and_only_the_server_is_signalled() -> None:
    service = read_unit()["Service"]
    drain_s = inspect.signature(serve).parameters["drain_timeout"].default
    assert int(service["TimeoutStopSec"]) > drain_s + LINGER_S
    assert service["KillMode"] == "mixed"


def test_what_someone_has_to_mend_is_not_started_again_and_a_dead_engine_is_but_not_for_ever() -> None:
    unit = read_unit()
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["RestartPreventExitStatus"]) == MalmoiError.exit_code != EngineError.exit_code
    assert int(unit["Unit"]["StartLimitBurst"]) * float(unit["Service"]["RestartSec"]) < int(
        unit["Unit"]["StartLimitIntervalSec"]
    )


def test_its_options_are_the_servers() -> None:
    lines = SETTINGS.read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert read_unit()["Service"]["ExecStart"] == f"{COMMAND} $CHECKPOINT $OPTIONS"
    assert list(settings) == ["CHECKPOINT", "OPTIONS"]
    parameters = inspect.signature(serve).parameters
    options = [word[2:] for word in shlex.split(settings["OPTIONS"]) if word.startswith("--")]
    assert options
    assert all(option.replace("-", "_") in parameters for option in options)


def read_unit() -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(UNIT, encoding="utf-8")
    return read
