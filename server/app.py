"""vLLM's own engine, app and handlers, made ready to be served inside our gate."""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI, Request
from jinja2 import TemplateError
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.engine.protocol import EngineClient
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.utils.server_utils import get_uvicorn_log_config
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
)
from vllm.exceptions import VLLMClientError, VLLMValidationError
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import SchedulerStats

from malmoi import chat
from malmoi.checkpoint import Checkpoint, check_golden
from malmoi.errors import ServeError
from malmoi.provenance import Rendering
from server.bounds import Bounds
from server.checks import Rules
from server.exchange import App
from server.gate import Gate
from server.hangul import WholeTextQueue, primed_stream
from server.keys import KeyFile
from server.launch import Launch
from server.life import LIFE
from server.loop import serve_gate
from server.metrics import Metrics
from server.page.site import Site, describe_card
from server.readiness import Readiness
from server.routes import ROUTES
from server.safety import Check, build_classifier
from server.slots import Slots

NO_TEXT = "No text fits the schema, grammar, pattern or choice that was asked for."
"""vLLM would answer 500: it masks every token, samples one even so, and ends with an error."""
REQUESTS_OF_PATHS: dict[str, tuple[Any, ...]] = {
    "/v1/chat/completions": (ChatCompletionRequest,),
    "/v1/completions": (CompletionRequest,),
    "/tokenize": (TokenizeChatRequest, TokenizeCompletionRequest),
    "/detokenize": (DetokenizeRequest,),
}


async def serve(launch: Launch, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT has been drained. `announce` is told the URL once it answers.

    Raises: ServeError if the engine cannot start or dies; LockError if it renders another golden prompt.
    """
    metrics = Metrics(objective=launch.objective)
    keys = KeyFile(launch.keys) if launch.keys else None
    classifier = build_classifier(launch.safety)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end_at_once)
    async with running_engine(launch.arguments, metrics) as engine:
        app = await build_vllm_app(engine, launch.arguments)
        await check_rendering(launch.checkpoint, app)
        card = describe_card(launch.checkpoint, launch.name, engine.model_config.max_model_len)
        readiness = watched(engine, metrics, launch.stall_timeout_s)
        check = Check(classifier, launch.safety, decoder(engine)) if classifier else None
        gate = build_gate(Site(app, card, metrics), engine, metrics, launch.bounds, keys, readiness, check)
        gate.document = describe_api(app)
        await warm_up(engine)
        gate.is_warm = True
        async with readiness.watching():
            await serve_gate(gate, launch, announce, get_uvicorn_log_config(launch.arguments))
    if classifier:
        await classifier.close()


def watched(engine: AsyncLLM, metrics: Metrics, stall_timeout_s: float) -> Readiness:
    """Whether `engine` decodes, by the steps that `metrics` is told of."""
    return Readiness(
        num_steps=lambda: metrics.live.num_steps,
        has_work=lambda: engine.get_num_unfinished_requests() > 0,
        prove=lambda: warm_up(engine),
        stall_timeout_s=stall_timeout_s,
    )


def build_gate(
    app: App,
    engine: AsyncLLM,
    metrics: Metrics,
    bounds: Bounds,
    keys: KeyFile | None,
    readiness: Readiness | None = None,
    check: Check | None = None,
) -> Gate:
    """The gate around `app`, its bounds measured by what `engine` can do."""
    capacity = bounds.max_running or engine.vllm_config.scheduler_config.max_num_seqs
    room = capacity if bounds.max_waiting is None else bounds.max_waiting
    rules = Rules(
        bounds=bounds,
        max_model_len=engine.model_config.max_model_len,
        vocab_size=engine.model_config.get_vocab_size(),
        max_sequences=capacity,
        known_fields={path: known_fields(*kinds) for path, kinds in REQUESTS_OF_PATHS.items()},
    )
    slots = Slots(capacity, room)
    gate = Gate(
        app,
        metrics,
        is_alive=lambda: not engine.errored and not (readiness and readiness.is_hung),
        why_not_ready=readiness.problem if readiness else lambda: None,
        rules=rules,
        slots=slots,
        keys=keys,
        check=check,
    )

    def is_ready() -> bool:
        """As /ready says it; asked by a thread of vLLM's, so it must not look at the engine by itself."""
        is_up = gate.is_warm and not gate.is_draining and not engine.errored
        return is_up and not (readiness and readiness.is_stalled)

    metrics.ready.set_function(is_ready)
    return gate


def describe_api(app: FastAPI) -> dict[str, Any]:
    """vLLM's OpenAPI document, of the routes that are let in."""
    document: dict[str, Any] = app.openapi()
    paths = {
        path: {method: said for method, said in methods.items() if method.upper() in ROUTES[path].methods}
        for path, methods in document["paths"].items()
        if path in ROUTES
    }
    return document | {"paths": paths}


def decoder(engine: AsyncLLM) -> Callable[[list[int]], str]:
    """What turns token ids into text, leaving out those that are none."""
    tokenizer, known = engine.renderer.get_tokenizer(), range(engine.model_config.get_vocab_size())
    return lambda token_ids: str(tokenizer.decode([token for token in token_ids if token in known]))


def known_fields(*requests: Any) -> frozenset[str]:
    """The fields that any of these pydantic models reads."""
    fields = [(name, field.alias) for request in requests for name, field in request.model_fields.items()]
    return frozenset(name for names in fields for name in names if name)


class WholeTextOutputs(OutputProcessor):  # type: ignore[misc]
    """vLLM's, with a WholeTextQueue in front of each request's queue."""

    def add_request(
        self,
        request: EngineCoreRequest,
        prompt: str | None,
        parent_req: ParentRequest | None = None,
        request_index: int = 0,
        queue: RequestOutputCollector | None = None,
    ) -> None:
        """Called for each sequence of a request, in the task that serves it."""
        life, parameters = LIFE.get(), request.sampling_params
        if queue is not None and parameters is not None:
            is_delta = parameters.output_kind == RequestOutputKind.DELTA
            no_text = VLLMValidationError(NO_TEXT) if parameters.structured_outputs is not None else None
            queue = WholeTextQueue(queue, life, is_delta=is_delta, no_text=no_text)
        super().add_request(request, prompt, parent_req, request_index, queue)
        if life is not None and request_index == 0:
            life.prompt_tokens += len(request.prompt_token_ids or ())
        detokenizer = self.request_states[request.request_id].detokenizer
        if isinstance(detokenizer, FastIncrementalDetokenizer):
            stream = primed_stream(
                detokenizer.tokenizer,
                request.prompt_token_ids or (),
                skip_special_tokens=detokenizer.skip_special_tokens,
            )
            detokenizer.stream = stream or detokenizer.stream


class WholeTextLLM(AsyncLLM):  # type: ignore[misc]
    """vLLM's engine client, on WholeTextOutputs."""

    output_processor: OutputProcessor

    def _run_output_handler(self) -> None:
        if self.output_handler is None:
            before = self.output_processor
            self.output_processor = WholeTextOutputs(
                before.tokenizer,
                log_stats=before.log_stats,
                stream_interval=before.stream_interval,
                tracing_enabled=before.tracing_enabled,
                admission_stats=before.admission_stats,
            )
        super()._run_output_handler()


@asynccontextmanager
async def running_engine(arguments: Namespace, metrics: Metrics) -> AsyncIterator[AsyncLLM]:
    """vLLM's engine in processes of its own, ended on leaving.

    Raises: ServeError if it cannot start; vLLM has then said why on stderr.
    """
    engine_arguments = AsyncEngineArgs.from_cli_args(arguments)
    try:
        vllm_config = engine_arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
        engine = WholeTextLLM.from_vllm_config(
            vllm_config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[step_recorder(metrics)],
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


def step_recorder(metrics: Metrics) -> type[StatLoggerBase]:
    """A stat logger for vLLM that tells `metrics` of each step of the engine."""

    class StepRecorder(StatLoggerBase):  # type: ignore[misc]
        def __init__(self, vllm_config: object, engine_index: int = 0) -> None:
            pass

        def record(
            self,
            scheduler_stats: SchedulerStats | None,
            iteration_stats: object,  # noqa: ARG002
            mm_cache_stats: object = None,  # noqa: ARG002
            engine_idx: int = 0,  # noqa: ARG002
        ) -> None:
            metrics.live.took_step(scheduler_stats)

        def log_engine_initialized(self) -> None:
            pass

    return StepRecorder


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

    Without its system turn where the template refuses one, as Gemma's does.

    Raises: TemplateError or VLLMClientError for a template that refuses it.
    """
    messages = [message.as_dict() for message in chat.GOLDEN_CONVERSATION]
    render = partial(
        app.state.online_renderer.renderer.get_tokenizer().apply_chat_template,
        add_generation_prompt=True,
        tokenize=False,
    )
    try:
        text = render(messages)
    except TemplateError:
        messages = [message for message in messages if message["role"] != "system"]
        text = render(messages)
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
    with suppress(OSError):  # of a full disk
        os.write(sys.stderr.fileno(), f"ended by {signal.Signals(number).name} while starting\n".encode())
    os._exit(128 + number)
