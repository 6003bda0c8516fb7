"""What the plugin does in the processes that vLLM starts."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest

from server.orphan import SERVED_BY, die_with_parent

pytestmark = pytest.mark.usefixtures("same_environment")


def tell_group(report: Connection, plugin: Callable[[], None]) -> None:
    plugin()
    report.send((os.getpid(), os.getpgrp()))


def process_and_group() -> tuple[int, int]:
    """Of a child that loads the plugin."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    child = spawn.Process(target=tell_group, args=(there, die_with_parent))
    child.start()
    there.close()
    told: tuple[int, int] = here.recv()
    child.join()
    return told


def test_ctrl_c_in_a_terminal_does_not_reach_engine_processes() -> None:
    os.environ[SERVED_BY] = str(os.getpid())
    process, group = process_and_group()
    assert group == process


def test_processes_of_a_plain_vllm_serve_are_left_as_they_are() -> None:
    os.environ.pop(SERVED_BY, None)
    assert process_and_group()[1] == os.getpgrp()
