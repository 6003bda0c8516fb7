"""Two servers behind a real HAProxy, configured as deploy/proxy has it but for addresses."""

import asyncio
import csv
import re
import shutil
import socket
import subprocess
import threading
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from vllm.config import VllmConfig

from tests.deploy.descriptions import DEPLOY
from tests.support.page_server import PageServer, page_server
from tests.support.ports import free_port
from tests.support.waiting import until

CONFIGURATION = DEPLOY / "proxy" / "haproxy.cfg"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="no haproxy (apt-get install haproxy)")

ANSWER = "대한민국의 수도는 서울입니다."
CHAT = "/v1/chat/completions"
REQUEST = {"messages": [{"role": "user", "content": "수도는 어디인가요?"}], "max_tokens": 64}
STREAM = REQUEST | {"stream": True}


@dataclass(frozen=True)
class Proxied:
    """Two servers, and a client of the proxy in front of them."""

    replicas: list[PageServer]
    client: httpx.Client
    admin: Path
    """The proxy's socket for commands."""
    leave: list[ExitStack]
    """Ends the server of that number."""

    def num_requests(self) -> list[int]:
        """That the engine of each has had."""
        return [len(replica.engine.core.requests) for replica in self.replicas]

    def states(self) -> list[str]:
        """Of each, as the proxy sees it: UP, DOWN ..."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.admin))
            admin.sendall(b"show stat malmoi 4 -1\n")
            lines = admin.makefile(encoding="ascii").readlines()
        return [row["status"] for row in csv.DictReader(lines)]


@pytest.fixture
def proxied(
    arguments: Namespace, vllm_config: VllmConfig, tiny_checkpoint: Path, tmp_path: Path
) -> Iterator[Proxied]:
    with ExitStack() as stack:
        leave = [stack.enter_context(ExitStack()) for _ in range(2)]
        replicas = [each.enter_context(page_server(arguments, vllm_config, tiny_checkpoint)) for each in leave]
        for replica in replicas:
            replica.say(ANSWER)
        port = free_port()
        file = tmp_path / "haproxy.cfg"
        file.write_text(configuration([replica.url for replica in replicas], port, tmp_path), encoding="utf-8")
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen([str(HAPROXY), "-f", str(file)], stdout=log, stderr=log)
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        until(lambda: client.get("/ready").status_code == 200)
        yield Proxied(replicas, client, tmp_path / "admin.sock", leave)


def configuration(urls: list[str], port: int, directory: Path) -> str:
    """As it is deployed, with the addresses of this test."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    replaced = {
        r"bind :8080": f"bind 127.0.0.1:{port}",
        r"/run/haproxy/admin\.sock": f"{directory}/admin.sock",
        r"10\.0\.0\.1:8000": urls[0].removeprefix("http://"),
        r"10\.0\.0\.2:8000": urls[1].removeprefix("http://"),
    }
    for pattern, value in replaced.items():
        text, num_found = re.subn(pattern, value, text)
        assert num_found == 1, pattern
    return text


def test_requests_go_to_both_and_metrics_are_not_for_the_proxy(proxied: Proxied) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: proxied.client.post(CHAT, json=REQUEST), range(8)))
    assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {ANSWER}
    assert min(proxied.num_requests()) > 0
    assert proxied.client.get("/metrics").status_code == 404


def test_text_of_a_stream_comes_through_as_it_is_written(proxied: Proxied) -> None:
    go_on = hold(proxied, after=3)
    with proxied.client.stream("POST", CHAT, json=STREAM) as answer:
        lines = (line for line in answer.iter_lines() if '"content":"' in line)
        assert next(lines), "while the rest has not been written"
        go_on.set()
        assert next(lines)


def test_client_that_goes_while_it_waits_is_gone_for_the_replica(proxied: Proxied) -> None:
    go_on = hold(proxied, after=0)
    with pytest.raises(httpx.ReadTimeout):
        proxied.client.post(CHAT, json=REQUEST, timeout=1)
    until(lambda: any(replica.engine.core.aborted for replica in proxied.replicas))
    go_on.set()


def test_replica_that_drains_finishes_its_streams_and_gets_no_new_ones(proxied: Proxied) -> None:
    go_on = hold(proxied, after=2)
    with proxied.client.stream("POST", CHAT, json=STREAM) as answer:
        lines = answer.iter_lines()
        first = next(line for line in lines if '"content":"' in line)
        chosen = proxied.num_requests().index(1)
        proxied.replicas[chosen].gate.drain()
        until(lambda: proxied.states().count("UP") == 1)
        go_on.set()
        others = [proxied.client.post(CHAT, json=REQUEST).status_code for _ in range(6)]
        rest = [line for line in lines if line]
    assert first and rest[-1] == "data: [DONE]"
    assert others == [200] * 6
    assert proxied.num_requests()[chosen] == 1


def test_replica_that_is_gone_costs_nobody_an_answer_and_without_any_the_proxy_says_so(
    proxied: Proxied,
) -> None:
    proxied.leave[0].close()
    before = proxied.num_requests()[0]
    statuses = [proxied.client.post(CHAT, json=REQUEST).status_code for _ in range(6)]
    assert statuses == [200] * 6, "where no connection came about, the other is asked"
    assert proxied.num_requests()[0] == before
    proxied.leave[1].close()
    until(lambda: proxied.client.get("/ready").status_code == 503)


def hold(proxied: Proxied, after: int) -> threading.Event:
    """From now on answers stop after so many tokens, until the event is set."""
    go_on = threading.Event()

    async def wait(index: int) -> None:
        while index >= after and not go_on.is_set():
            await asyncio.sleep(0.01)

    for replica in proxied.replicas:
        replica.say(ANSWER, wait)
    return go_on
