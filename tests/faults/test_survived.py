"""Faults that one server survives, one after the other; beside each, a client streams and misses nothing."""

import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.readiness import STALLED
from tests.faults.conftest import STALL_S, WRITE_TIMEOUT_S
from tests.faults.probes import PATIENCE_S, SLACK_S, engine_process, wait_for_ready
from tests.faults.streams import bystander, tokenizer_of
from tests.faults.wall_clock import LIBRARY, WallClock
from tests.server.test_checks import nested
from tests.support.running_server import RunningServer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "대한민국의 수도는 어디인가요?"}]
LONG = {"model": "tiny", "prompt": "대한민국", "n": 2, "max_tokens": 4000, "ignore_eos": True}
"""Fills all slots but the bystander's."""
DAY_S = 24 * 3600
MIB = 1 << 20


def post(server: RunningServer, path: str, body: object, **settings: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60, **settings)


def sample(server: RunningServer, name: str, **labels: str) -> float:
    """The sum of the series of /metrics that have these labels."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
    samples = [each for family in families for each in family.samples if each.name == name]
    return sum(each.value for each in samples if labels.items() <= each.labels.items())


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def connection(
    server: RunningServer, sent: bytes, *, receive_bytes: int | None = None
) -> Iterator[socket.socket]:
    """On which `sent` was sent; closed with a reset in the end, as by a client that is killed."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        client.settimeout(30)
        client.connect((host, int(port)))
        client.sendall(sent)
        yield client
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_to_the_end(client: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    parts = []
    with suppress(ConnectionError):
        while part := client.recv(MIB):
            parts.append(part)
    return b"".join(parts)


def raw_request(path: str, body: object, *, length: int | None = None) -> bytes:
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw) if length is None else length}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + raw


STREAM = raw_request(COMPLETIONS, LONG | {"stream": True})
PHASES = {
    "in the head": STREAM[:40],
    "in the body": STREAM[:-9],
    "in the queue": STREAM,
    "in the prefill": STREAM,
    "while it decodes": STREAM,
    "while a whole answer is made": raw_request(COMPLETIONS, LONG),
}


@contextmanager
def stopped_engine(server: RunningServer) -> Iterator[None]:
    """So that a phase lasts as long as the block; not long enough to count as stalled."""
    process = engine_process(server, "EngineCor")
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@pytest.mark.parametrize("phase", PHASES)
def test_client_that_goes(survivor: RunningServer, talkative: Path, phase: str) -> None:
    """Whenever it goes, its slot is free and the engine works on nothing of it."""
    gone = {"route": "completions", "outcome": "disconnected"}
    before = sample(survivor, "malmoi_requests_total", **gone)
    with bystander(survivor, talkative):
        if phase == "while it decodes":
            with connection(survivor, STREAM) as client:
                client.recv(1)
        else:
            with stopped_engine(survivor), connection(survivor, PHASES[phase]):
                if phase == "in the queue":
                    with connection(survivor, STREAM):
                        until(lambda: sample(survivor, "malmoi_requests_in_flight", state="waiting") > 0)
                elif phase == "while a whole answer is made":
                    until(lambda: sample(survivor, "malmoi_requests_in_flight", state="running") > 1)
        counted = {"in the head": 0, "in the queue": 2}.get(phase, 1)
        until(lambda: sample(survivor, "malmoi_requests_total", **gone) == before + counted)
        until(lambda: sample(survivor, "vllm:num_requests_running") <= 1)
        assert sample(survivor, "malmoi_requests_in_flight") <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("stream", "num_tokens"), [(True, 4000), (False, 1600)])
def test_reader_that_stalls_is_given_up(
    survivor: RunningServer, talkative: Path, stream: bool, num_tokens: int
) -> None:
    """Its answer is more than the kernel takes in its place; a whole one is handed over even so."""
    body = {"model": "tiny", "messages": QUESTION, "n": 2, "max_tokens": num_tokens, "ignore_eos": True}
    large = raw_request(CHAT, body | {"stream": stream, "logprobs": True, "top_logprobs": 20})
    ended = {"route": "chat", "outcome": "disconnected" if stream else "ok"}
    before = sample(survivor, "malmoi_requests_total", **ended)
    with bystander(survivor, talkative), connection(survivor, large, receive_bytes=4096) as client:
        until(lambda: sample(survivor, "malmoi_requests_total", **ended) == before + 1, 100)
        until(lambda: sample(survivor, "vllm:num_requests_running") <= 1)
        time.sleep(WRITE_TIMEOUT_S + SLACK_S)
        head, _, received = read_to_the_end(client).partition(b"\r\n\r\n")
        if stream:
            assert not received.endswith(b"0\r\n\r\n")
        else:
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length
            assert len(received) < int(length[1])


def test_100_mb_are_refused_and_not_kept(survivor: RunningServer, talkative: Path) -> None:
    api = psutil.Process(survivor.process.pid)
    before = api.memory_info().rss
    with bystander(survivor, talkative):
        for headers in ({"content-length": str(100 * MIB)}, {"transfer-encoding": "chunked"}):
            parts = (bytes(MIB) for _ in range(100))
            answer = httpx.post(survivor.url + CHAT, content=parts, headers=headers, timeout=60)
            assert answer.status_code == 413
            assert "1048576 bytes" in answer.json()["error"]["message"]
        assert api.memory_info().rss < before + 32 * MIB


def json_schema(schema: object) -> dict[str, object]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


BAD: dict[str, dict[str, object]] = {
    "a schema of no type": json_schema({"type": "nonsense"}),
    "a schema that is itself": json_schema({"$ref": "#"}),
    "a schema with half a pattern": json_schema({"type": "string", "pattern": "(((((a*)*)*)*)*"}),
    "an expression that is none": {"structured_outputs": {"regex": "("}},
    "a grammar without an end": {"structured_outputs": {"grammar": "root ::= root"}},
    "a tool of no type": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 7}}}],
        "tool_choice": "required",
    },
    "a thousand answers": {"n": 1000},
    "stop strings without end": {"stop": ["가"] * 1000},
    "a bias for every token": {"logit_bias": {str(number): 1 for number in range(2000)}},
    "an object in an object in an object": {"metadata": {"x": nested(100)}},
}


def test_bad_requests_are_400s_and_nobody_else_notices(survivor: RunningServer, talkative: Path) -> None:
    with bystander(survivor, talkative):
        for name, fields in BAD.items():
            answer = post(survivor, CHAT, {"model": "tiny", "messages": QUESTION, "max_tokens": 4} | fields)
            assert answer.status_code == 400, (name, answer.text)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, name
        deep = httpx.post(survivor.url + CHAT, content=b'{"messages":' + b"[" * 200_000, timeout=60)
        assert deep.status_code == 400


@pytest.mark.parametrize("stream", [True, False])
def test_characters_that_are_split(survivor: RunningServer, talkative: Path, stream: bool) -> None:
    """In the request, by the network; in its prompt's last token; and all over the answer."""
    tokenizer = tokenizer_of(talkative)
    prompt = tokenizer.encode("수도는 뷁", add_special_tokens=False)[:-1]
    halves = tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in "뷁".encode()])
    body = {"model": "tiny", "prompt": prompt, "allowed_token_ids": halves, "user": "뷁"}
    wanted = {"max_tokens": 300, "ignore_eos": True, "return_token_ids": True, "stream": stream}
    raw = json.dumps(body | wanted, ensure_ascii=False).encode()
    middle = raw.index("뷁".encode()) + 1
    with bystander(survivor, talkative):
        answer = httpx.post(
            survivor.url + COMPLETIONS,
            content=(part for part in (raw[:middle], raw[middle:])),
            headers={"content-type": "application/json"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        events = re.findall(r"^data: (\{.*)$", answer.text, re.MULTILINE) if stream else [answer.text]
        choices = [json.loads(event)["choices"][0] for event in events]
        ids = [id for choice in choices for id in choice["token_ids"]]
        text = "".join(choice["text"] for choice in choices)
        assert len(ids) == wanted["max_tokens"]
        assert "\ufffd" not in text
        assert all(choice["text"] for choice in choices[:-1]), "a piece is empty"
        assert "수도" not in text, "the prompt is repeated"


@pytest.mark.parametrize("kind", ["EngineCor", "Worker"])
def test_process_of_the_engine_that_is_stopped(survivor: RunningServer, talkative: Path, kind: str) -> None:
    with bystander(survivor, talkative):
        process = engine_process(survivor, kind)
        process.suspend()
        try:
            assert wait_for_ready(survivor, 503, STALL_S + SLACK_S) == STALLED
            assert httpx.get(f"{survivor.url}/health").status_code == 200
        finally:
            process.resume()
        assert wait_for_ready(survivor, 200, PATIENCE_S) == "ok"


def test_wall_clock_that_is_stepped(survivor: RunningServer, talkative: Path, wall_clock: WallClock) -> None:
    """Nothing that is measured or bounded goes by it."""

    def date() -> float:
        told = parsedate_to_datetime(httpx.get(f"{survivor.url}/ready").headers["date"])
        return told.timestamp() - time.time()

    for process in survivor.engine_processes():
        assert any(LIBRARY in mapped.path for mapped in process.memory_maps())
    before = sample(survivor, "malmoi_request_duration_seconds_sum")
    begun = time.monotonic()
    with bystander(survivor, talkative):
        try:
            for ahead_s in (DAY_S, -DAY_S):
                wall_clock.step(ahead_s)
                until(lambda ahead_s=ahead_s: abs(date() - ahead_s) < 60)  # type: ignore[misc]
                answer = post(survivor, COMPLETIONS, {"prompt": "서울", "max_tokens": 8, "ignore_eos": True})
                assert answer.json()["usage"]["completion_tokens"] == 8
                assert wait_for_ready(survivor, 200, PATIENCE_S) == "ok"
        finally:
            wall_clock.step(0)
    spent_s = sample(survivor, "malmoi_request_duration_seconds_sum") - before
    assert 0 < spent_s < 10 * (time.monotonic() - begun)


GET = ("/", "/health", "/ready", "/metrics", "/v1/models", "/v1/usage", "/openapi.json", "/page/live")


def test_every_answer_says_how_long_it_took(survivor: RunningServer) -> None:
    ask = {"model": "tiny", "prompt": "서울", "max_tokens": 2}
    preflight = {"origin": "http://x", "access-control-request-method": "POST"}
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    with httpx.Client(base_url=survivor.url, timeout=60) as client:
        answers = {
            200: [
                *map(client.get, GET),
                client.post(COMPLETIONS, json=ask),
                client.post(COMPLETIONS, json=ask | {"stream": True}),
                client.get("/v1/models", headers=upgrade | {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}),
            ],
            400: [
                client.post(CHAT, content=b"{"),
                client.post(CHAT, json={"messages": [{"role": "x"}]}),
                client.options(CHAT, headers=preflight),
            ],
            404: [client.get("/docs"), client.post(COMPLETIONS, json=ask | {"model": "none"})],
            405: [client.put("/v1/models")],
            413: [client.post(CHAT, content=bytes(2 * MIB))],
        }
    for status, those in answers.items():
        for answer in those:
            assert answer.status_code == status, (answer.request.url, answer.text)
            assert re.search(r"total;dur=\d+\.\d+$", answer.headers["server-timing"]), answer.request.url
            if status != 200 and answer.request.method != "OPTIONS":
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_no_socket_of_any_process_is_open_to_others(survivor: RunningServer) -> None:
    listening = [
        each.laddr.ip
        for process in survivor.processes()
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
