from pathlib import Path

import psutil
import pytest

from malmoi.errors import ServeError
from malmoi.speed import NUM_STREAMS, NUM_TOKENS
from quant.serving import measure_speed, running_server
from tests.support.checkpoints import KOREAN
from tests.support.exports import copy_changed


def test_the_servers_own_reason_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    quantization = {"quant_method": "gptq", "bits": 3, "group_size": 128, "sym": True, "desc_act": False}
    export = copy_changed(tiny_checkpoint, tmp_path / "export", quantization_config=quantization)
    with pytest.raises(ServeError, match=r"malmoi-serve serves it.*bits=3"):
        measure_speed(export, KOREAN)


@pytest.mark.slow
def test_speed_is_measured_and_the_server_is_gone(demo_checkpoint: Path) -> None:
    speed = measure_speed(demo_checkpoint, KOREAN, options=["--short-lived"])
    assert speed.tokens_per_second > NUM_STREAMS * NUM_TOKENS / 60
    assert 0 < speed.characters_per_second < 10 * speed.tokens_per_second
    others = set(psutil.Process().children(recursive=True))
    with running_server(demo_checkpoint, ["--short-lived"]) as url:
        port = int(url.rpartition(":")[2])
        family = set(psutil.Process().children(recursive=True)) - others
        assert any(_listens(process, port) for process in family)
    assert not psutil.wait_procs(family, timeout=30)[1]


def _listens(process: psutil.Process, port: int) -> bool:
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        for connection in process.net_connections("tcp")
    )
