"""schemathesis over the served OpenAPI document, with data that fits it and that does not: no 5xx, no hang."""

import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm.config import VllmConfig

from server.app import describe_api
from tests.faults.streams import bystander
from tests.server.test_gate import ANSWER
from tests.support.page_server import PageServer, page_server
from tests.support.running_server import running_server

SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
SLOWEST_S = 10
MAX_TOKENS = 32
MODES = ("positive", "negative")


def num_cases(url: str, mode: str, directory: Path, *, phases: str, max_examples: int) -> int:
    """How many requests were made; none of them may be answered with a 5xx, or late."""
    command = [
        *(SCHEMATHESIS, "run", f"{url}/openapi.json", "--mode", mode, "--checks", "not_a_server_error"),
        *("--max-response-time", str(SLOWEST_S), "--request-timeout", str(2 * SLOWEST_S), "--seed", "1"),
        *("--phases", phases, "--max-examples", str(max_examples), "--continue-on-failure", "--no-color"),
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=directory)
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr
    counted = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert counted is not None, ended.stdout
    assert counted[1] == counted[2]
    return int(counted[1])


@pytest.fixture(scope="module")
def scripted(arguments: Namespace, vllm_config: VllmConfig, tiny_checkpoint: Path) -> Iterator[PageServer]:
    with page_server(arguments, vllm_config, tiny_checkpoint) as server:
        server.gate.document = describe_api(server.gate._app._app)  # type: ignore[attr-defined]
        server.say(ANSWER)
        yield server
        assert server.gate.slots.num_running == 0
        assert server.gate.num_running == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_hundred_requests(scripted: PageServer, tmp_path: Path, mode: str) -> None:
    assert num_cases(scripted.url, mode, tmp_path, phases="fuzzing", max_examples=30) >= 100


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_thousands_of_requests(scripted: PageServer, tmp_path: Path, mode: str) -> None:
    assert num_cases(scripted.url, mode, tmp_path, phases="coverage,fuzzing", max_examples=300) >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_thousands_of_requests_to_the_real_engine(tiny_checkpoint: Path, tmp_path: Path, mode: str) -> None:
    """Their answers are short, so that what is late is late for another reason."""
    bounds = ("--max-tokens", str(MAX_TOKENS))
    with (
        running_server(tmp_path, str(tiny_checkpoint), "--name", "tiny", *bounds) as server,
        bystander(server, tiny_checkpoint, max_tokens=MAX_TOKENS),
    ):
        cases = num_cases(server.url, mode, tmp_path, phases="coverage,fuzzing", max_examples=300)
    assert cases >= 2000
