"""vLLM's own AsyncLLM with a scripted core in place of its engine process.

Everything in front of the engine process is vLLM's: prompt rendering, tokenization, detokenization, stop
strings, statistics, abort, the death of the engine. Only the tokens come from a script.
"""

import asyncio
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from vllm.config import VllmConfig
from vllm.renderers import renderer_from_config
from vllm.v1.engine import (
    EngineCoreEvent,
    EngineCoreEventType,
    EngineCoreOutput,
    EngineCoreOutputs,
    EngineCoreRequest,
    FinishReason,
)
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.metrics.loggers import StatLoggerManager

from server.app import WholeTextLLM, step_recorder
from server.metrics import Metrics


@dataclass(frozen=True)
class Script:
    """What the core answers every request: `token_ids`, the last one finishing it.

    before_token: awaited before the token at an index is produced; it may wait, or raise EngineDeadError.
    queued_s: how long the core says that the request waited.
    """

    token_ids: Sequence[int]
    before_token: Callable[[int], Awaitable[None]] | None = None
    queued_s: float = 0.0
    finish_reason: FinishReason = FinishReason.STOP


class Pause:
    """A script's `before_token` that waits before the token at `index` of every answer until `go_on` is set."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, index: int) -> None:
        if index == self.index:
            self.reached.set()
            await self.go_on.wait()


class ScriptedCore:
    """Stands where vLLM's EngineCoreClient stands."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.resources = SimpleNamespace(engine_dead=False)
        self.requests: list[EngineCoreRequest] = []
        self.aborted: set[str] = set()
        self.engine_ranks_managed = [0]
        self._outputs: asyncio.Queue[EngineCoreOutputs | Exception] = asyncio.Queue()
        self._players: set[asyncio.Task[None]] = set()

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        return ("generate",)

    async def get_output_async(self) -> EngineCoreOutputs:
        output = await self._outputs.get()
        if isinstance(output, Exception):
            raise output
        return output

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        self.requests.append(request)
        player = asyncio.create_task(self._play(request))
        self._players.add(player)
        player.add_done_callback(self._players.discard)

    async def abort_requests_async(self, request_ids: Sequence[str]) -> None:
        self.aborted.update(request_ids)

    def die(self) -> None:
        """What vLLM's client does when the engine process is gone."""
        self.resources.engine_dead = True
        self._outputs.put_nowait(EngineDeadError())

    def shutdown(self, timeout: float | None = None) -> None:
        for player in self._players:
            player.cancel()

    async def _play(self, request: EngineCoreRequest) -> None:
        now = time.monotonic()
        events = [
            EngineCoreEvent(EngineCoreEventType.QUEUED, now - self.script.queued_s),
            EngineCoreEvent(EngineCoreEventType.SCHEDULED, now),
        ]
        for index, token_id in enumerate(self.script.token_ids):
            if self.script.before_token:
                await self.script.before_token(index)
            if request.request_id in self.aborted or self.resources.engine_dead:
                return
            last = index == len(self.script.token_ids) - 1
            output = EngineCoreOutput(
                request_id=request.request_id,
                new_token_ids=[token_id],
                finish_reason=self.script.finish_reason if last else None,
                events=events,
            )
            events = []
            self._outputs.put_nowait(EngineCoreOutputs(outputs=[output]))


class ScriptedEngine(WholeTextLLM):
    """The server's engine client on a ScriptedCore; the attributes are those that AsyncLLM.__init__ sets."""

    def __init__(self, vllm_config: VllmConfig, script: Script, metrics: Metrics) -> None:
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.scheduler_config = vllm_config.scheduler_config
        self.observability_config = vllm_config.observability_config
        self.log_requests = False
        self.log_stats = True
        self.renderer = renderer_from_config(vllm_config)
        self.input_processor = InputProcessor(vllm_config, self.renderer)
        self.admission_stats = None
        self.output_processor = OutputProcessor(self.renderer.tokenizer, log_stats=True)
        self.core = ScriptedCore(script)
        self.engine_core: Any = self.core
        self.logger_manager = StatLoggerManager(vllm_config, custom_stat_loggers=[step_recorder(metrics)])
        self._client_count = 1
        self.output_handler = None
        self.profiler = None


def engine_config(arguments: Namespace) -> VllmConfig:
    """vLLM's configuration for `arguments`, as the server makes it."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
