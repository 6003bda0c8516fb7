"""vLLM's real app on a scripted engine, inside our gate."""

import os
from argparse import Namespace
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from prometheus_client import CollectorRegistry
from vllm.config import VllmConfig

from server.app import build_gate, build_vllm_app
from server.bounds import Bounds
from server.checks import Rules
from server.exchange import App
from server.gate import Gate
from server.keys import KeyFile
from server.launch import parse_engine_options
from server.metrics import Metrics
from server.slots import Slots
from tests.support.scripted_engine import Script, ScriptedEngine, engine_config

BOUNDS = Bounds()


class ServeScript(Protocol):
    """Starts vLLM's app on a script."""

    def __call__(self, script: Script, bounds: Bounds = ..., keys: KeyFile | None = ...) -> Awaitable["Served"]:
        """To be awaited inside the test's event loop."""


@dataclass
class Served:
    """A gate around vLLM's app, and what is behind it."""

    gate: Gate
    engine: ScriptedEngine
    registry: CollectorRegistry

    def sample(self, name: str, **labels: str) -> float | None:
        """The sum of the series of ours that have these labels; None if there is none."""
        return sample_of(self.registry, name, **labels)


def gate_around(app: App, registry: CollectorRegistry, bounds: Bounds = BOUNDS) -> Gate:
    """Around any app, without an engine."""
    rules = Rules(bounds=bounds, max_model_len=512, vocab_size=384, max_sequences=4)
    return Gate(app, Metrics(registry), is_alive=lambda: True, rules=rules, slots=Slots(4, 4))


def sample_of(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
    values = [sample.value for sample in samples if labels.items() <= sample.labels.items()]
    return sum(values) if values else None


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

    async def serve(script: Script, bounds: Bounds = BOUNDS, keys: KeyFile | None = None) -> Served:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        engine = ScriptedEngine(vllm_config, script, metrics)
        app = await build_vllm_app(engine, arguments)
        gate = build_gate(app, engine, metrics, bounds, keys)
        gate.is_warm = True
        return Served(gate, engine, registry)

    return serve
