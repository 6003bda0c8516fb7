"""The loop around the gate on real sockets, as the command runs it: start, serve, drain, end."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
import uvloop
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from malmoi import chat
from malmoi.checkpoint import open_checkpoint
from malmoi.errors import LockError, ServeError
from malmoi.provenance import ids_digest, text_digest
from quant.rendering import render
from server.app import build_vllm_app, check_rendering
from server.exchange import Receive, Scope, Send
from server.launch import Launch, prepare
from server.loop import WATCH_INTERVAL_S, serve_gate
from server.metrics import Metrics
from tests.server.conftest import Served, ServeScript, engine_arguments, gate_around, sample_of
from tests.server.test_gate import ANSWER, CHAT, QUESTION, answering, streamed_text
from tests.server.test_launch import foreign_copy, options
from tests.support.scripted_engine import Pause, Script, ScriptedEngine, engine_config

pytestmark = pytest.mark.usefixtures("same_environment")
PATIENCE_S = 20.0
ENDLESS_S = 600.0


@dataclass
class Running:
    """A server in this process; its engine waits before the second token of an answer until `go_on` is set."""

    served: Served
    url: str
    serving: asyncio.Task[None]
    go_on: asyncio.Event

    @asynccontextmanager
    async def half_answered(self) -> AsyncIterator[httpx.Response]:
        """A streamed answer of which the first token has been read."""
        request = {"model": "tiny", "messages": QUESTION, "stream": True}
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client,
            client.stream("POST", CHAT, json=request) as response,
        ):
            await until(lambda: bool(self.served.engine.core.requests))
            yield response

    async def ended(self) -> None:
        """Returns, or raises, as the server does."""
        await asyncio.wait_for(self.serving, PATIENCE_S)


@pytest.fixture
def launch(tiny_checkpoint: Path) -> Launch:
    return prepare(options(tiny_checkpoint, drain_timeout_s=ENDLESS_S))


@asynccontextmanager
async def running(launch: Launch, serve_script: ServeScript) -> AsyncIterator[Running]:
    pause = Pause(1)
    served = await answering(serve_script, ANSWER, before_token=pause)
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_gate(served.gate, launch, announced.set_result))
    url = await asyncio.wait_for(announced, PATIENCE_S)
    try:
        yield Running(served, url, serving, pause.go_on)
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        served.engine.shutdown()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def send_signals(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def warnings_of(scenario: Coroutine[None, None, None], caplog: pytest.LogCaptureFixture) -> int:
    """How many lines are said of it."""
    with caplog.at_level(logging.WARNING, logger="server"):
        uvloop.run(scenario)
    return len(caplog.records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain_finishes_what_runs(
    launch: Launch, serve_script: ServeScript, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with running(launch, serve_script) as server, server.half_answered() as response:
            send_signals(number)
            await until(lambda: server.served.gate.is_draining)
            async with httpx.AsyncClient(base_url=server.url) as client:
                assert (await client.post(CHAT, json={})).status_code == 503
            server.go_on.set()
            body = (await response.aread()).decode()
            await server.ended()
        assert streamed_text(body) == ANSWER

    assert warnings_of(scenario(), caplog) == 0


def test_two_signals_at_once_end_the_wait_and_it_is_said(
    launch: Launch, serve_script: ServeScript, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with running(launch, serve_script) as server, server.half_answered() as response:
            send_signals(signal.SIGTERM, signal.SIGINT)
            await server.ended()
            with pytest.raises(httpx.TransportError):
                await response.aread()

    assert warnings_of(scenario(), caplog) == 1


def test_answers_that_outlast_the_drain_are_cut_and_it_is_said(
    launch: Launch, serve_script: ServeScript, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        impatient = replace(launch, drain_timeout_s=0.1)
        async with running(impatient, serve_script) as server, server.half_answered():
            send_signals(signal.SIGTERM)
            await server.ended()

    assert warnings_of(scenario(), caplog) == 1


def test_engine_that_dies_while_draining_is_an_error(launch: Launch, serve_script: ServeScript) -> None:
    async def scenario() -> None:
        async with running(launch, serve_script) as server, server.half_answered() as response:
            send_signals(signal.SIGTERM)
            await asyncio.sleep(1.5 * WATCH_INTERVAL_S)  # past the loop that watches the engine while serving
            server.served.engine.core.die()
            body = (await response.aread()).decode()
            with pytest.raises(ServeError, match="engine: expected a running engine process"):
                await server.ended()
        assert '"error"' in body

    uvloop.run(scenario())


def test_reader_that_stalls_does_not_hold_up_the_end(launch: Launch) -> None:
    """Its answer is written, but lies in the server's buffers: more than the kernel takes."""

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(1 << 26)})

    async def scenario() -> None:
        registry = CollectorRegistry()
        announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve_gate(gate_around(large, registry), launch, announced.set_result))
        await announced
        with socket.create_connection(launch.listener.getsockname()) as stalled:
            stalled.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            labels = {"route": "models", "outcome": "ok"}
            await until(lambda: sample_of(registry, "malmoi_requests_total", **labels) == 1)
            send_signals(signal.SIGTERM)
            await asyncio.wait_for(serving, PATIENCE_S)

    uvloop.run(scenario())


def test_client_that_goes_ends_its_request(launch: Launch, serve_script: ServeScript) -> None:
    async def scenario() -> None:
        async with running(launch, serve_script) as server:
            async with server.half_answered():
                pass
            labels = {"route": "chat", "outcome": "disconnected"}
            await until(lambda: server.served.sample("malmoi_requests_total", **labels) == 1)
            core = server.served.engine.core
            assert core.aborted == {request.request_id for request in core.requests}
            send_signals(signal.SIGTERM)
            await server.ended()

    uvloop.run(scenario())


def test_port_that_another_listens_on_by_now_is_an_error_and_no_url(
    launch: Launch, serve_script: ServeScript
) -> None:
    """Both were bound while connections of a server that had ended kept the port."""
    launch.listener.close()
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", first.getsockname()[1]))
        first.listen()

        async def scenario() -> None:
            served = await serve_script(Script(token_ids=[]))
            late = replace(launch, listener=second)
            with pytest.raises(ServeError, match="in use"):
                await serve_gate(served.gate, late, pytest.fail)

        uvloop.run(scenario())


@pytest.fixture
def certificate(tmp_path: Path) -> Sequence[str]:
    """Options for https."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make a certificate")
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return ("--ssl-keyfile", key, "--ssl-certfile", cert)


def test_ciphers_asked_for_are_the_ciphers_used(
    tiny_checkpoint: Path, serve_script: ServeScript, certificate: Sequence[str]
) -> None:
    wanted = "ECDHE-RSA-AES128-GCM-SHA256"  # not the one that client and server would agree on

    async def scenario() -> None:
        given = (*certificate, "--ssl-ciphers", wanted)
        async with running(prepare(options(tiny_checkpoint, engine_options=given)), serve_script) as server:
            context = ssl._create_unverified_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            assert writer.get_extra_info("cipher")[0] == wanted
            writer.close()
            send_signals(signal.SIGTERM)
            await server.ended()

    uvloop.run(scenario())


def test_bad_ciphers_are_one_line(
    tiny_checkpoint: Path, serve_script: ServeScript, certificate: Sequence[str]
) -> None:
    async def scenario() -> None:
        given = (*certificate, "--ssl-ciphers", "none-such")
        launch = prepare(options(tiny_checkpoint, engine_options=given))
        served = await serve_script(Script(token_ids=[]))
        with launch.listener, pytest.raises(ServeError, match="No cipher can be selected"):
            await serve_gate(served.gate, launch, pytest.fail)

    uvloop.run(scenario())


NO_TURN = "{{ raise_exception('No role supported') }}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}" + NO_TURN + "{% endif %}{{ messages[-1].content }}"


async def app_with_template(checkpoint: Path, directory: Path, template: str) -> tuple[Path, FastAPI]:
    foreign = foreign_copy(checkpoint, directory)
    (foreign / "chat_template.jinja").write_text(template)
    arguments = engine_arguments(foreign)
    engine = ScriptedEngine(engine_config(arguments), Script(token_ids=[]), Metrics(CollectorRegistry()))
    return foreign, await build_vllm_app(engine, arguments)


def test_template_that_refuses_all_is_served_without_a_lock_and_a_line_with_one(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        foreign, app = await app_with_template(tiny_checkpoint, tmp_path, NO_TURN)
        await check_rendering(open_checkpoint(foreign), app)
        with pytest.raises(ServeError, match="No role supported"):
            await check_rendering(open_checkpoint(tiny_checkpoint), app)

    asyncio.run(scenario())


def test_template_that_refuses_a_system_turn_is_held_to_the_others(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        foreign, app = await app_with_template(tiny_checkpoint, tmp_path, NO_SYSTEM)
        rendering = render(foreign, chat.GOLDEN_CONVERSATION)
        assert rendering.text == chat.GOLDEN_CONVERSATION[-1].content
        checkpoint = open_checkpoint(tiny_checkpoint)
        assert checkpoint.provenance is not None
        lock = replace(
            checkpoint.provenance.lock,
            golden_text=text_digest(rendering.text),
            golden_token_ids=ids_digest(rendering.token_ids),
        )
        held = replace(checkpoint, provenance=replace(checkpoint.provenance, lock=lock))
        await check_rendering(held, app)
        with pytest.raises(LockError, match="golden prompt's text"):
            await check_rendering(checkpoint, app)

    asyncio.run(scenario())
