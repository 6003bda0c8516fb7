"""schemathesis over the served OpenAPI document, with data that fits it and that does not: no 5xx, no hang."""

import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from vllm.config import VllmConfig

from server.app import describe_api
from tests.server.test_gate import ANSWER
from tests.support.page_server import page_server

MIN_CASES = 2000
SLOWEST_S = 10


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_5xx_and_no_hang(
    arguments: Namespace, vllm_config: VllmConfig, tiny_checkpoint: Path, tmp_path: Path, mode: str
) -> None:
    beside = Path(sys.executable).with_name("schemathesis")
    program = str(beside) if beside.exists() else shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis is not installed")
    with page_server(arguments, vllm_config, tiny_checkpoint) as server:
        server.gate.document = describe_api(server.gate._app._app)  # type: ignore[attr-defined]
        server.say(ANSWER)
        command = [
            *(program, "run", f"{server.url}/openapi.json", "--mode", mode, "--checks", "not_a_server_error"),
            *("--max-response-time", str(SLOWEST_S), "--request-timeout", str(2 * SLOWEST_S), "--seed", "1"),
            *("--phases", "coverage,fuzzing", "--max-examples", "300", "--continue-on-failure", "--no-color"),
        ]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert server.gate.slots.num_running == 0
        assert server.gate.num_running == 0
    assert ended.returncode == 0, ended.stdout[-8000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    assert counted is not None
    assert int(counted[1]) == int(counted[2]) >= MIN_CASES
