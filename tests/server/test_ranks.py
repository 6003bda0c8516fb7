"""One model on several ranks: what is made of vLLM's options for it before an engine starts."""

from pathlib import Path

import pytest

from malmoi.checkpoint import open_checkpoint
from malmoi.errors import ServeError
from server.launch import parse_engine_options, size_kv_cache


def test_ranks_share_the_kv_cache_that_one_would_have(tiny_checkpoint: Path) -> None:
    def size(*given: str) -> int:
        arguments = parse_engine_options([], given)
        size_kv_cache(open_checkpoint(tiny_checkpoint), arguments)
        return int(arguments.kv_cache_memory_bytes)

    assert size("--tensor-parallel-size", "2") == size("--pipeline-parallel-size", "2") == size() // 2


@pytest.mark.parametrize("option", ["--data-parallel-size", "-dp"])
def test_replicas_are_servers_of_their_own(option: str) -> None:
    parse_engine_options([], [option, "1"])
    with pytest.raises(ServeError, match=r"--data-parallel-size, .*a proxy in front"):
        parse_engine_options([], [option, "2"])
