"""malmoi-train evaluate by address, against malmoi-serve and against vLLM's own server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.benchmarks import write_kobest
from tests.support.checkpoints import KOREAN
from tests.support.exports import write_jsonl
from tests.support.running_server import START_S, STOP_S, RunningServer
from train.evaluation.evaluation import run
from train.evaluation.request import Request
from train.evaluation.results import Results, read


@contextmanager
def stock_server(directory: Path, checkpoint: Path) -> Iterator[str]:
    """The address of `vllm serve CHECKPOINT`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(checkpoint), "--enforce-eager"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "8"],
            env=environment | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()[
                -4000:
            ]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_S)


def evaluated(model: str, folder: Path, name: str) -> Results:
    korean = write_jsonl(folder / "korean.jsonl", [{"text": text} for text in (*KOREAN, " ".join(KOREAN * 20))])
    questions = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "-"}]}
        for text in ("대한민국의 수도는 어디인가요?", "12 더하기 7은 얼마인가요?")
    ]
    request = Request(
        model=model,
        korean=(str(korean),),
        benchmarks=("kobest",),
        shots=(0, 1),
        data=write_kobest(folder / "kobest", num_rows=4, num_examples=3),
        questions=(str(write_jsonl(folder / "questions.jsonl", questions)),),  # type: ignore[arg-type]
    )
    return run(request, folder / name, folder / f"{name}.work")


def assert_alike(local: Results, served: Results) -> None:
    """The same but for the order in which 16 bits are added up."""
    korean = [found.language["korean"] for found in (local, served)]
    assert korean[0] is not None and korean[1] is not None
    assert korean[1].whole.bits_per_byte == pytest.approx(korean[0].whole.bits_per_byte, rel=2e-3)
    assert korean[1].whole.num_tokens == korean[0].whole.num_tokens > 1024
    assert served.chat == local.chat and local.chat is not None and local.chat.eos_rate == 1
    same = total = 0
    for task, by_shots in local.benchmarks.items():
        for shots, score in by_shots.items():
            assert served.benchmarks[task][shots].prompt_digest == score.prompt_digest
            same += sum(
                served.benchmarks[task][shots].metrics[name].value == metric.value
                for name, metric in score.metrics.items()
            )
            total += len(score.metrics)
    assert same >= 0.8 * total
    assert served.speed is not None and served.speed.characters_per_second > 0
    assert served.digest is None and local.speed is None


@pytest.fixture(scope="module")
def local(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("local")
    return evaluated(str(demo_checkpoint), folder, "local")


def test_our_server_by_address(server: RunningServer, local: Results, tmp_path: Path) -> None:
    served = evaluated(server.url, tmp_path, "served")
    assert served.name == "demo" and served.model == server.url
    assert read(tmp_path / "served") == served
    assert_alike(local, served)


@pytest.mark.slow
def test_vllms_own_server_by_address(demo_checkpoint: Path, local: Results, tmp_path: Path) -> None:
    with stock_server(tmp_path, demo_checkpoint) as address:
        assert_alike(local, evaluated(address, tmp_path, "served"))
