from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.wall_clock import WallClock
from tests.server.conftest import arguments, vllm_config
from tests.support.checkpoints import create_tiny_checkpoint
from tests.support.running_server import RunningServer, running_server

__all__ = ["arguments", "survivor", "talkative", "vllm_config", "wall_clock"]
STALL_S = 2.0
WRITE_TIMEOUT_S = 2.0
BOUNDS = ("--max-running", "3", "--max-waiting", "16", "--write-timeout", f"{WRITE_TIMEOUT_S}")
"""For an n of 2 and one more."""


@pytest.fixture(scope="session")
def wall_clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    """Of the server below."""
    return WallClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="session")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint whose answers may be so long that a fault is sure to meet them."""
    return create_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", max_position_embeddings=4096)


@pytest.fixture(scope="session")
def survivor(
    talkative: Path, wall_clock: WallClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with the real engine, for all the faults that it survives."""
    arguments = (str(talkative), "--name", "tiny", "--stall-timeout", f"{STALL_S}", *BOUNDS)
    with (
        wall_clock.preloaded(),
        running_server(tmp_path_factory.mktemp("survivor"), *arguments) as server,
    ):
        yield server
