"""The two servers: how each is started in each part, and one of them running."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks import processes
from benchmarks.serving.model import MAX_LENGTH
from malmoi.checkpoint import Checkpoint
from malmoi.errors import ServeError
from malmoi.memory import available_memory_bytes
from server import machine

Name = Literal["stock", "malmoi"]
Part = Literal["overhead", "saturation", "out-of-the-box"]

BIN = Path(sys.prefix, "bin")
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 40.0
MEMORY_TIMEOUT_S = 60.0
MEMORY_SLACK_BYTES = 1 << 30
MAX_RUNNING = 32
"""Sequences that either engine runs at once, in the part about saturation."""
QUEUE_TIMEOUT_S = 1.0
"""What malmoi-serve is told there; stock has no such option."""
SHELL_PREFIXES = ("VLLM_", "MALMOI_", "OMP_", "KMP_", "GOMP_", "LD_PRELOAD", "TORCH")
"""Variables of the caller's shell that neither server is given."""
QUIET_STOCK = ("--disable-uvicorn-access-log", "--uvicorn-log-level", "warning")
"""malmoi-serve writes no access log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One server as it is started."""

    name: str
    command: tuple[str, ...]
    """Without --port N, which each start adds."""
    environment: Mapping[str, str]
    """What is set beside the caller's environment."""
    model: str
    """Its name in the API."""
    ready_path: str = "/ready"
    """Whose first 200 tells that it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that answers."""

    pid: int
    url: str
    ready_s: float
    """Seconds from starting the process to the first 200 of its readiness route."""


def contenders(
    part: Part, checkpoint: Checkpoint, cache: Path, stock_options: tuple[str, ...] = ()
) -> tuple[Contender, Contender]:
    """Stock and ours, as `part` compares them; `cache` is where each keeps what it compiles."""
    if part == "overhead":
        return same_engine(checkpoint, cache)
    if part == "saturation":
        limits = ("--queue-timeout", str(QUEUE_TIMEOUT_S))
        return same_engine(checkpoint, cache, ("--max-num-seqs", str(MAX_RUNNING)), limits)
    stock, ours = as_they_come(checkpoint, cache)
    return replace(stock, command=(*stock.command, *stock_options)), ours


def same_engine(
    checkpoint: Checkpoint, cache: Path, engine_options: Sequence[str] = (), own_options: Sequence[str] = ()
) -> tuple[Contender, Contender]:
    """Both with the settings malmoi-serve chooses for this machine, stated; `own_options`: to it alone."""
    available = available_memory_bytes()
    kv_cache_bytes = machine.kv_cache_bytes(checkpoint, max_model_len=MAX_LENGTH, available_bytes=available)
    flags = ["--max-model-len", str(MAX_LENGTH), "--kv-cache-memory-bytes", str(kv_cache_bytes)]
    flags += engine_options
    if machine.why_eager(short_lived=False):
        flags.append("--enforce-eager")
    environment = {
        **{setting.name: setting.value for setting in machine.cpu_environment({})},
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    stock, ours = as_they_come(checkpoint, cache)
    return (
        Contender(
            name="stock",
            command=(*stock.command, "--served-model-name", ours.model, *QUIET_STOCK, *flags),
            environment={**stock.environment, **environment},
            model=ours.model,
            ready_path=stock.ready_path,
        ),
        Contender(
            name="malmoi",
            command=(*ours.command, *own_options, "--", *flags),
            environment={**ours.environment, **environment},
            model=ours.model,
        ),
    )


def as_they_come(checkpoint: Checkpoint, cache: Path) -> tuple[Contender, Contender]:
    """Each with its own defaults; but offline, on loopback, with a cache of its own."""

    def environment(name: Name) -> dict[str, str]:
        own = {"VLLM_CACHE_ROOT": str(cache / name), "TORCHINDUCTOR_CACHE_DIR": str(cache / name / "inductor")}
        return {**own, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

    path = str(checkpoint.path)
    return (
        Contender(
            name="stock",
            command=(str(BIN / "vllm"), "serve", path, "--host", "127.0.0.1"),
            environment=environment("stock"),
            model=path,
            ready_path="/health",
        ),
        Contender(
            name="malmoi",
            command=(str(BIN / "malmoi-serve"), path),
            environment=environment("malmoi"),
            model=checkpoint.path.name,
        ),
    )


def callers_environment() -> dict[str, str]:
    """The environment of this process without what would change a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SHELL_PREFIXES)}


@contextmanager
def running(contender: Contender, log: Path) -> Iterator[Running]:
    """The server, ready; on leaving its processes are ended and their memory is back.

    Raises: ServeError if it does not become ready.
    """
    available = processes.available_bytes()
    port = _free_port()
    with log.open("wb") as lines:
        started_at = time.perf_counter()
        process = subprocess.Popen(
            with_port(contender.command, port),
            env=callers_environment() | dict(contender.environment),
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # The stock server takes nearly all memory: should it run out, the server is what the kernel ends.
    Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url + contender.ready_path, log)
        yield Running(pid=process.pid, url=url, ready_s=time.perf_counter() - started_at)
    finally:
        _end(process)
        _wait_for_memory(available)


@contextmanager
def taking_turns(contenders: Sequence[Contender], raw: Path, part: Part) -> Iterator[dict[str, Running]]:
    """All of them by name, started and then stopped (SIGSTOP): their engines are asked only within `awake`.

    A server that is merely idle still does something now and then, malmoi-serve to see whether it decodes.
    """
    with ExitStack() as stack:
        started = {}
        for contender in contenders:
            server = stack.enter_context(running(contender, raw / f"{part}-{contender.name}.log"))
            started[contender.name] = server
            os.killpg(server.pid, signal.SIGSTOP)
        yield started


@contextmanager
def awake(server: Running) -> Iterator[Running]:
    """A server that was stopped, going on within the block."""
    os.killpg(server.pid, signal.SIGCONT)
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGSTOP)


def with_port(command: tuple[str, ...], port: int) -> list[str]:
    """The command with its port, before what follows `--`."""
    place = command.index("--") if "--" in command else len(command)
    return [*command[:place], "--port", str(port), *command[place:]]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise ServeError(
        log,
        expected=f"a server that is ready within {START_TIMEOUT_S:.0f} s",
        found=f"exit {process.poll()}" if process.poll() is not None else "none",
        next_step="read its lines there",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the server to stop, then ends what is left of its process group, whether its parent lives or not."""
    process.send_signal(signal.SIGTERM)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for_memory(wanted_bytes: int) -> None:
    """Waits until the memory that was available before the server started is so again."""
    deadline = time.monotonic() + MEMORY_TIMEOUT_S
    while processes.available_bytes() < wanted_bytes - MEMORY_SLACK_BYTES:
        if time.monotonic() > deadline:
            print("warning: memory is not back; something else has taken it", file=sys.stderr)
            return
        time.sleep(0.5)
