"""vLLM's own engine, app and handlers inside our gate, and our loop around them: start, serve, drain, end."""

import asyncio
import logging
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI, Request
from jinja2 import TemplateError
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.launcher import NoSignalServer
from vllm.entrypoints.launchers.utils.server_utils import get_uvicorn_log_config
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest
from vllm.exceptions import VLLMClientError
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats

from malmoi import chat
from malmoi.checkpoint import Checkpoint, check_golden
from malmoi.errors import ServeError
from malmoi.provenance import Rendering
from server.gate import Gate
from server.launch import Launch, listen
from server.metrics import Metrics, Outcome
from server.protocol import StampedProtocol

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.5
"""Between two looks at the engine; a wake-up of the event loop costs it about 0.1 ms."""
DEAD_ENGINE_GRACE_S = 2.0
"""How long probes are still answered, with 503, after the engine has died."""
DRAIN_INTERVAL_S = 0.05
LINGER_S = 3
"""How long, after the drain, what is written may still be on its way to clients that read slowly."""
KEEP_ALIVE_S = 5
ROUTE_OF_REQUEST_ID = {"chatcmpl": "chat", "cmpl": "completions"}
OUTCOME_OF_FINISH: dict[str, Outcome] = {"abort": "failed", "error": "failed"}
"""Of what the engine itself ends; of requests that the API aborts, their clients gone, it tells nothing."""


async def serve(launch: Launch, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT has been drained. `announce` is told the URL once it answers.

    Raises: ServeError if the engine cannot start or dies; LockError if it renders another golden prompt.
    """
    metrics = Metrics()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_at_once)
    async with running_engine(launch.arguments, metrics) as engine:
        app = await build_vllm_app(engine, launch.arguments)
        await check_rendering(launch.checkpoint, app)
        gate = Gate(app, metrics, is_alive=lambda: not engine.errored)
        await warm_up(engine)
        gate.is_warm = True
        await serve_gate(gate, engine, launch, announce)


@asynccontextmanager
async def running_engine(arguments: Namespace, metrics: Metrics) -> AsyncIterator[AsyncLLM]:
    """vLLM's engine in processes of its own, ended on leaving.

    Raises: ServeError if it cannot start; vLLM has then said why on stderr.
    """
    engine_arguments = AsyncEngineArgs.from_cli_args(arguments)
    try:
        vllm_config = engine_arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
        engine = AsyncLLM.from_vllm_config(
            vllm_config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[queue_recorder(metrics)],
            enable_log_requests=engine_arguments.enable_log_requests,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ServeError(
            arguments.model,
            expected="an engine that starts",
            found=str(error),
            next_step="vLLM's own lines above say more; VLLM_LOGGING_LEVEL=INFO shows all of them",
        ) from error
    try:
        yield engine
    finally:
        engine.shutdown(timeout=0)


def queue_recorder(metrics: Metrics) -> type[StatLoggerBase]:
    """A stat logger for vLLM that records each finished request's wait in the engine's queue."""

    class QueueRecorder(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: object, engine_index: int = 0) -> None:
            pass

        def record(
            self,
            scheduler_stats: object,  # noqa: ARG002
            iteration_stats: IterationStats | None,
            mm_cache_stats: object = None,  # noqa: ARG002
            engine_idx: int = 0,  # noqa: ARG002
        ) -> None:
            for request in iteration_stats.finished_requests if iteration_stats else ():
                route = ROUTE_OF_REQUEST_ID.get((request.request_id or "").split("-")[0])
                if route:
                    outcome = OUTCOME_OF_FINISH.get(str(request.finish_reason), "ok")
                    metrics.record_queue(route, outcome, max(0.0, request.queued_time))

        def log_engine_initialized(self) -> None:
            pass

    return QueueRecorder


async def build_vllm_app(engine: EngineClient, arguments: Namespace) -> FastAPI:
    """vLLM's own FastAPI application around `engine`, its handlers ready."""
    tasks = await engine.get_supported_tasks()
    app: FastAPI = build_app(arguments, tasks, engine.model_config)
    await init_app_state(engine, app.state, arguments, tasks)
    # vLLM's handlers tell uvicorn to stop when the engine has died; here the serve loop decides that.
    app.state.server = SimpleNamespace(should_exit=False)
    return app


async def check_rendering(checkpoint: Checkpoint, app: FastAPI) -> None:
    """Raises LockError or ServeError unless the golden conversation is rendered as the lock, if any, has it."""
    if checkpoint.provenance is None or checkpoint.provenance.lock.golden_text is None:
        return
    try:
        check_golden(checkpoint, await render_golden(app))
    except (TemplateError, VLLMClientError) as error:
        raise ServeError(
            checkpoint.path,
            expected="a chat template that renders a conversation",
            found=str(error),
            next_step="install the library versions malmoi.json names, or make the checkpoint again",
        ) from error


async def render_golden(app: FastAPI) -> Rendering:
    """The golden conversation: its text by the served tokenizer, its token ids by the app's own handler.

    Raises: TemplateError or VLLMClientError for a template that refuses it.
    """
    messages = [message.as_dict() for message in chat.GOLDEN_CONVERSATION]
    text = app.state.online_renderer.renderer.get_tokenizer().apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    request = TokenizeChatRequest(messages=messages, add_generation_prompt=True)
    tokenized = await app.state.serving_tokenization.create_tokenize(
        request, Request({"type": "http", "headers": []})
    )
    if isinstance(tokenized, ErrorResponse):
        raise VLLMClientError(tokenized.error.message)
    return Rendering(text=text, token_ids=tokenized.tokens)


async def warm_up(engine: EngineClient) -> None:
    """Decodes two tokens, so that no client pays for what a first request sets up."""
    parameters = SamplingParams(max_tokens=2, ignore_eos=True)
    async for _ in engine.generate({"prompt_token_ids": [0]}, parameters, "warm-up"):
        pass


def end_at_once(number: int, _frame: object) -> None:
    """Signal handler while starting: nobody waits for an answer yet, and the engine's processes end with us.

    An exception raised here would surface inside a callback of the event loop or of vLLM, and be lost there.
    """
    os.write(sys.stderr.fileno(), f"ended by {signal.Signals(number).name} while starting\n".encode())
    os._exit(128 + number)


async def serve_gate(gate: Gate, engine: EngineClient, launch: Launch, announce: Callable[[str], None]) -> None:
    """Serves `gate` until a signal has been drained, or the engine dies.

    Raises: ServeError if the engine dies, even while draining, or something else listens on the port by now.
    """
    hurry = drain_on_signals(gate)
    server = _listening_server(gate, launch)
    serving = asyncio.create_task(server.serve(sockets=[launch.listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            announce(_url(launch))
        while not (gate.is_draining or engine.errored or serving.done()):
            await asyncio.sleep(WATCH_INTERVAL_S)
        await _drain(gate, engine, hurry, launch.drain_timeout_s)
        if engine.errored:
            await asyncio.sleep(DEAD_ENGINE_GRACE_S)
            raise ServeError(
                "engine",
                expected="a running engine process",
                found="one that has died",
                next_step="restart the server; vLLM's lines above say why it died",
            )
    finally:
        if gate.num_running:  # those that outlasted the drain, or their engine
            for connection in list(server.server_state.connections):
                connection.transport.abort()  # to their handlers, as if the client had gone
        server.should_exit = True
        await serving


def drain_on_signals(gate: Gate) -> asyncio.Event:
    """From the first SIGTERM or SIGINT on the gate refuses new work; the event is set by a second one."""
    hurry = asyncio.Event()

    def take_note() -> None:
        if gate.is_draining:
            hurry.set()
        gate.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, take_note)
    return hurry


async def _drain(gate: Gate, engine: EngineClient, hurry: asyncio.Event, timeout_s: float) -> None:
    """Lets the running requests finish, but no longer than the engine lives, or a second signal allows."""
    deadline = time.monotonic() + timeout_s
    while gate.num_running and not engine.errored:
        if hurry.is_set() or time.monotonic() > deadline:
            why = "by a second signal" if hurry.is_set() else f"after {timeout_s:g} s of draining"
            logger.warning("answers cut off %s: %d", why, gate.num_running)
            return
        await asyncio.sleep(DRAIN_INTERVAL_S)


def _listening_server(gate: Gate, launch: Launch) -> NoSignalServer:
    """uvicorn around `gate`; raises ServeError where it cannot listen or has no use for the certificates."""
    try:
        server = NoSignalServer(_uvicorn_config(gate, launch.arguments))
        listen(launch.listener)  # uvloop would not say that it cannot
    except OSError as error:
        raise ServeError(
            _url(launch),
            expected="an address to listen on and, for https, certificates",
            found=str(error),
            next_step="stop what uses it, choose another (--port N), or mend the --ssl options after --",
        ) from error
    return server


def _uvicorn_config(gate: Gate, arguments: Namespace) -> uvicorn.Config:
    config = uvicorn.Config(
        gate,
        http=StampedProtocol,
        lifespan="on",
        log_config=get_uvicorn_log_config(arguments),
        log_level=arguments.uvicorn_log_level,
        access_log=not arguments.disable_uvicorn_access_log,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LINGER_S,
        ssl_keyfile=arguments.ssl_keyfile,
        ssl_certfile=arguments.ssl_certfile,
        ssl_ca_certs=arguments.ssl_ca_certs,
        ssl_cert_reqs=arguments.ssl_cert_reqs,
        ssl_ciphers=arguments.ssl_ciphers,
    )
    config.load()
    return config


def _url(launch: Launch) -> str:
    host, port = launch.listener.getsockname()[:2]
    scheme = "https" if launch.arguments.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
