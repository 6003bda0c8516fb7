"""vLLM's real app on a scripted engine, inside our gate."""

import os
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from vllm.config import VllmConfig

from server.app import build_vllm_app
from server.gate import Gate
from server.launch import parse_engine_options
from server.metrics import Metrics
from tests.support.scripted_engine import Script, ScriptedEngine, engine_config

ServeScript = Callable[[Script], Awaitable["Served"]]


@dataclass
class Served:
    """A gate around vLLM's app, and what is behind it."""

    gate: Gate
    engine: ScriptedEngine
    registry: CollectorRegistry

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of one series of ours."""
        return self.registry.get_sample_value(name, labels)


@pytest.fixture(scope="session")
def arguments(tiny_checkpoint: Path) -> Iterator[Namespace]:
    before = dict(os.environ)
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    yield engine_arguments(tiny_checkpoint)
    os.environ.clear()
    os.environ.update(before)


def engine_arguments(checkpoint: Path) -> Namespace:
    """vLLM's, for a small engine."""
    return parse_engine_options(
        ["--model", str(checkpoint), "--served-model-name", "tiny", "--kv-cache-memory-bytes", "16777216"]
    )


@pytest.fixture(scope="session")
def vllm_config(arguments: Namespace) -> VllmConfig:
    return engine_config(arguments)


@pytest.fixture
def serve_script(arguments: Namespace, vllm_config: VllmConfig) -> ServeScript:
    """Starts vLLM's app on a script; to be awaited inside the test's event loop."""

    async def serve(script: Script) -> Served:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        engine = ScriptedEngine(vllm_config, script, metrics)
        app = await build_vllm_app(engine, arguments)
        gate = Gate(app, metrics, is_alive=lambda: not engine.errored)
        gate.is_warm = True
        return Served(gate, engine, registry)

    return serve
