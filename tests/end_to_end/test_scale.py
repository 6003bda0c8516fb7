"""Two ranks of one model, as far as two CPU cores can show it: options of vLLM that are passed through."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.running_server import RunningServer, running_server, wait_until_gone

pytestmark = pytest.mark.slow
BIND = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
"""A core for each rank; by itself vLLM gives each a NUMA node."""
REQUEST = {"prompt": "대한민국의 수도는", "max_tokens": 16, "temperature": 0, "ignore_eos": True}


def completed(server: RunningServer) -> str:
    answer = httpx.post(f"{server.url}/v1/completions", json=REQUEST, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


@pytest.fixture
def alone(demo_checkpoint: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path, str(demo_checkpoint), "--name", "demo") as server:
        yield server


@pytest.fixture
def halved(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory, options = tmp_path_factory.mktemp("halved"), ("--tensor-parallel-size", "2")
    with running_server(directory, str(demo_checkpoint), options=options, settings=BIND) as server:
        yield server


def test_two_tensor_parallel_ranks_answer_as_one_and_end_together(
    alone: RunningServer, halved: RunningServer
) -> None:
    ranks = [process for process in halved.engine_processes() if process.name().startswith("VLLM::Worker")]
    assert len(ranks) == 2
    assert completed(halved) == completed(alone)
    processes = halved.processes()
    ranks[1].kill()
    assert halved.wait() != 0
    assert wait_until_gone(processes, 20) == []
