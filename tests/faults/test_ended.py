"""Faults that end a server, or a process of it: what its clients are told, what is left, what starts again."""

import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server.readiness import GIVE_UP_FACTOR, IDLE_S, STALLED
from tests.faults.probes import SLACK_S, engine_process, wait_for_ready
from tests.faults.streams import begun_streams
from tests.support.running_server import RunningServer, running_server, wait_until_gone

pytestmark = pytest.mark.slow
STALL_S = 2.0
RESTART_S = 240.0
NUM_STREAMS = 32
LONG = {"model": "tiny", "prompt": "대한민국", "max_tokens": 400, "ignore_eos": True, "temperature": 0}


def serving(directory: Path, checkpoint: Path, *arguments: str) -> Any:
    return running_server(
        directory, str(checkpoint), "--name", "tiny", "--stall-timeout", str(STALL_S), *arguments
    )


def complete(server: RunningServer) -> str:
    answer = httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=120).json()
    assert answer["usage"]["completion_tokens"] == LONG["max_tokens"]
    return str(answer["choices"][0]["text"])


def test_engine_that_is_stopped_while_idle_is_found_out(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with serving(tmp_path, tiny_checkpoint) as server:
        core = engine_process(server, "EngineCor")
        core.suspend()
        assert wait_for_ready(server, 503, IDLE_S + STALL_S + SLACK_S) == STALLED
        core.resume()
        wait_for_ready(server, 200, SLACK_S)


def test_hung_engine_is_given_up_and_the_server_started_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with serving(tmp_path, tiny_checkpoint, "--max-restarts", "1") as server:
        before = server.processes()[1:]  # all but the supervisor
        engine_process(server, "Worker").suspend()
        hung = time.monotonic()
        assert wait_until_gone(before, IDLE_S + GIVE_UP_FACTOR * STALL_S + 3 * SLACK_S) == []
        assert time.monotonic() - hung > GIVE_UP_FACTOR * STALL_S
        wait_for_ready(server, 200, RESTART_S)
        complete(server)


@pytest.mark.parametrize("victim", ["api", "EngineCor", "Worker"])
def test_what_is_killed_is_started_again_and_then_no_more(
    tiny_checkpoint: Path, tmp_path: Path, victim: str
) -> None:
    def kill(server: RunningServer) -> list[psutil.Process]:
        processes: list[psutil.Process] = server.processes()[1:]
        (processes[0] if victim == "api" else engine_process(server, victim)).kill()
        return processes

    with serving(tmp_path, tiny_checkpoint, "--max-restarts", "1") as server:
        assert wait_until_gone(kill(server), 20) == []
        wait_for_ready(server, 200, RESTART_S)
        complete(server)
        left = [server.processes()[0], *kill(server)]
        assert server.wait() == (128 + signal.SIGKILL if victim == "api" else 1)
        assert wait_until_gone(left, 10) == []


def test_killed_supervisor_takes_everything_along(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with serving(tmp_path, tiny_checkpoint, "--max-restarts", "1") as server:
        processes = server.processes()
        assert len(processes) >= 4
        server.process.kill()
        assert wait_until_gone(processes, 20) == []


def test_signal_to_the_supervisor_drains_the_server(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with serving(tmp_path, tiny_checkpoint, "--max-restarts", "1") as server:
        processes = server.processes()
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json=LONG | {"stream": True}, timeout=120
        ) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            assert "data: [DONE]" in list(lines)
        assert server.wait() == 0
        assert wait_until_gone(processes, 10) == []


def test_signal_under_load_drains_every_stream_whole(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with serving(tmp_path, tiny_checkpoint, "--drain-timeout", "120") as server:
        processes = server.processes()
        streams = begun_streams(NUM_STREAMS, server, tiny_checkpoint, max_tokens=LONG["max_tokens"])
        server.process.send_signal(signal.SIGTERM)
        while (refused := httpx.post(f"{server.url}/v1/completions", json=LONG | {"max_tokens": 1})).is_success:
            pass
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        for stream in streams:
            stream.assert_whole()
        assert server.wait() == 0
        assert wait_until_gone(processes, 10) == []


@pytest.mark.parametrize("end", ["SIGTERM", "kill -9 of the engine"])
def test_full_disk_for_logs(talkative: Path, tmp_path: Path, end: str) -> None:
    """From some moment on not a byte more can be written to a file; that is all that is missing."""
    with serving(tmp_path, talkative, "--max-n", "4", "--drain-timeout", "120") as server:
        processes = server.processes()
        size = server.log.stat().st_size
        for process in processes:
            process.rlimit(psutil.RLIMIT_FSIZE, (size, size))
        stream = begun_streams(1, server, talkative)[0]
        assert httpx.post(f"{server.url}/v1/completions", json=LONG | {"n": 5}).status_code == 400
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:  # what uvicorn has a line for
            client.sendall(b"no HTTP\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"
        if end == "SIGTERM":
            server.process.send_signal(signal.SIGTERM)
            stream.assert_whole()
        else:
            stream.assert_whole()
            engine_process(server, "EngineCor").kill()
        assert (server.wait() == 0) == (end == "SIGTERM")
        assert server.log.stat().st_size == size
        assert wait_until_gone(processes, 10) == []
