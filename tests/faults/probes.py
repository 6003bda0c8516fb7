"""What a running server is made of, and says of itself."""

import time

import httpx
import psutil

from tests.support.running_server import RunningServer

SLACK_S = 3.0
"""Of a busy machine, beyond a bound."""
PATIENCE_S = 30.0
"""For what comes back, with no bound promised."""


def engine_process(server: RunningServer, kind: str) -> psutil.Process:
    return next(each for each in server.engine_processes() if each.name().startswith(f"VLLM::{kind}"))


def wait_for_ready(server: RunningServer, status: int, timeout_s: float) -> str:
    """What /ready says, once it has that status."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{server.url}/ready")
        except httpx.TransportError:  # nothing listens
            time.sleep(0.1)
            continue
        if answer.status_code == status:
            return str(answer.json()["status"])
        time.sleep(0.05)
    raise AssertionError(f"/ready was not {status} within {timeout_s} s")
