"""Readiness, supervision and traces of the real server: engines stopped, hung and killed."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from server.readiness import GIVE_UP_FACTOR, IDLE_S, STALLED
from tests.support.running_server import RunningServer, running_server, wait_until_gone

pytestmark = pytest.mark.slow
STALL_S = 2.0
SLACK_S = 3.0
"""Of a busy machine, beyond the bound."""
RESTART_S = 240.0
NUM_STREAMS = 32
LONG = {"model": "tiny", "prompt": "대한민국", "max_tokens": 400, "ignore_eos": True, "temperature": 0}


def serving(directory: Path, checkpoint: Path, *arguments: str) -> Any:
    return running_server(
        directory, str(checkpoint), "--name", "tiny", "--stall-timeout", str(STALL_S), *arguments
    )


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


def complete(server: RunningServer) -> str:
    answer = httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=120).json()
    assert answer["usage"]["completion_tokens"] == LONG["max_tokens"]
    return str(answer["choices"][0]["text"])


@pytest.mark.parametrize("kind", ["EngineCor", "Worker"])
def test_stopped_engine_turns_ready_503_and_its_stream_loses_nothing(
    tiny_checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    with serving(tmp_path, tiny_checkpoint) as server:
        whole = complete(server)
        engine = engine_process(server, kind)
        texts: list[str] = []
        begun = threading.Event()

        def read() -> None:
            with httpx.stream(
                "POST", f"{server.url}/v1/completions", json=LONG | {"stream": True}, timeout=120
            ) as response:
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        texts.append(json.loads(line[6:])["choices"][0]["text"])
                        begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(60)
        engine.suspend()
        try:
            assert wait_for_ready(server, 503, STALL_S + SLACK_S) == STALLED
            assert httpx.get(f"{server.url}/health").status_code == 200
        finally:
            engine.resume()
        assert wait_for_ready(server, 200, SLACK_S) == "ok"
        reader.join(120)
        assert "".join(texts) == whole
        assert server.process.poll() is None


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
        assert server.wait() == (128 + signal.SIGKILL if victim == "api" else 2)
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
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    words = [id for id in range(len(tokenizer)) if not tokenizer.convert_ids_to_tokens(id).startswith("<")]
    assert len(words) > 100  # of whole characters: their texts joined are the text
    request = LONG | {"stream": True, "temperature": 1.0, "return_token_ids": True, "allowed_token_ids": words}

    async def read(client: httpx.AsyncClient, begun: asyncio.Semaphore) -> tuple[list[int], str]:
        ids: list[int] = []
        texts: list[str] = []
        async with client.stream("POST", "/v1/completions", json=request) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    return ids, "".join(texts)
                if line.startswith("data: "):
                    choice = json.loads(line[6:])["choices"][0]
                    if not ids:
                        begun.release()
                    ids += choice["token_ids"] or []
                    texts.append(choice["text"])
        raise AssertionError("a stream without its end")

    async def scenario(server: RunningServer) -> list[tuple[list[int], str]]:
        begun = asyncio.Semaphore(0)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=httpx.Limits()) as client:
            streams = [asyncio.create_task(read(client, begun)) for _ in range(NUM_STREAMS)]
            for _ in streams:
                await begun.acquire()
            server.process.send_signal(signal.SIGTERM)
            while (refused := await client.post("/v1/completions", json=LONG | {"max_tokens": 1})).is_success:
                pass
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            return await asyncio.gather(*streams)

    with serving(tmp_path, tiny_checkpoint, "--drain-timeout", "120") as server:
        processes = server.processes()
        for ids, text in asyncio.run(scenario(server)):
            assert len(ids) == LONG["max_tokens"]
            assert text == tokenizer.decode(ids)
        assert server.wait() == 0
        assert wait_until_gone(processes, 10) == []


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OpenTelemetry collector: its address, and what was exported to it."""
    exported: list[ExportTraceServiceRequest] = []

    def export(request: ExportTraceServiceRequest, _context: object) -> ExportTraceServiceResponse:
        exported.append(request)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", exported
    finally:
        server.stop(None)


def test_traces_go_where_the_flag_says_and_continue_the_clients(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with (
        collector() as (address, exported),
        running_server(tmp_path, str(tiny_checkpoint), "--name", "tiny", "--traces", address) as server,
    ):
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        httpx.post(f"{server.url}/v1/completions", json=LONG, headers=headers, timeout=120)
        deadline = time.monotonic() + 30
        while not (spans := spans_of(exported, trace)):
            assert time.monotonic() < deadline, "no span arrived"
            time.sleep(0.1)
        attributes = {attribute.key for attribute in spans[0].attributes}
        assert "gen_ai.usage.completion_tokens" in attributes
        assert "gen_ai.latency.time_in_queue" in attributes


def spans_of(exported: list[ExportTraceServiceRequest], trace: str) -> list[Any]:
    """Requests' spans of that trace."""
    return [
        span
        for request in list(exported)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == "llm_request" and span.trace_id.hex() == trace
    ]
