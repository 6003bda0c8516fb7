"""kill -9 of each process of a server, while it answers."""

import signal
from pathlib import Path

import pytest

from tests.faults.probes import engine_process
from tests.faults.streams import begun_streams
from tests.support.running_server import running_server, wait_until_gone

MAX_TOKENS = 4000


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["api", "EngineCor", "Worker"])
def test_kill_9_under_load_leaves_no_process_and_no_answer_that_looks_whole(
    talkative: Path, tmp_path: Path, victim: str
) -> None:
    with running_server(tmp_path, str(talkative), "--name", "tiny") as server:
        processes = server.processes()
        streams = begun_streams(8, server, talkative, max_tokens=MAX_TOKENS)
        (processes[0] if victim == "api" else engine_process(server, victim)).kill()
        assert {stream.wait() for stream in streams} == {"broken" if victim == "api" else "error"}
        assert all(len(stream.ids) < MAX_TOKENS for stream in streams)
        assert server.wait() == (-signal.SIGKILL if victim == "api" else 1)
        assert wait_until_gone(processes, 20) == []
