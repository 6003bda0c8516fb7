"""The gate around vLLM's real app on a scripted engine, served on a real socket by a thread of this process."""

import asyncio
import threading
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry
from vllm.config import VllmConfig

from malmoi.checkpoint import open_checkpoint
from server.app import build_gate, build_vllm_app
from server.bounds import Bounds
from server.gate import Gate
from server.keys import KeyFile
from server.loop import NoSignalServer
from server.metrics import Metrics
from server.page.site import Site, describe_card
from server.protocol import protocol_with
from tests.support.scripted_engine import Script, ScriptedEngine

START_S = 20.0


@dataclass
class PageServer:
    """A server that answers every question with the text last given to `say`."""

    url: str
    engine: ScriptedEngine
    gate: Gate
    metrics: Metrics

    def say(self, text: str, before_token: Callable[[int], Awaitable[None]] | None = None) -> None:
        """From now on answers are `text`; `before_token`: see Script."""
        tokenizer = self.engine.renderer.get_tokenizer()
        ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        self.engine.core.script = Script(token_ids=ids, before_token=before_token)


@contextmanager
def page_server(
    arguments: Namespace,
    vllm_config: VllmConfig,
    released: Path,
    keys: KeyFile | None = None,
    registry: CollectorRegistry | None = None,
) -> Iterator[PageServer]:
    """Serves on a free port of the loopback within the block, with the card of the checkpoint `released`.

    registry: where our metrics are to be registered, if anybody is to read them.
    """
    started: list[PageServer] = []
    ready = threading.Event()
    stop = threading.Event()

    async def serve() -> None:
        metrics = Metrics(registry or CollectorRegistry())
        engine = ScriptedEngine(vllm_config, Script(token_ids=[]), metrics)
        app = await build_vllm_app(engine, arguments)
        card = describe_card(open_checkpoint(released), "tiny", vllm_config.model_config.max_model_len)
        gate = build_gate(Site(app, card, metrics), engine, metrics, Bounds(), keys)
        gate.is_warm = True
        config = uvicorn.Config(gate, port=0, http=protocol_with(10.0), log_level="warning", lifespan="on")
        server = NoSignalServer(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        started.append(PageServer(f"http://127.0.0.1:{port}", engine, gate, metrics))
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        server.should_exit = True
        await serving
        engine.shutdown()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(START_S), "the server did not start"
        yield started[0]
    finally:
        stop.set()
        thread.join(START_S)
