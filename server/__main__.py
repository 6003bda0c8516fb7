"""malmoi-serve: one checkpoint behind an OpenAI-compatible API, and the keys to it."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from malmoi.errors import reported_in_one_line
from malmoi.help_text import unfolded
from server.bounds import Bounds
from server.objective import Objective
from server.orphan import die_with_supervisor, tell_supervisor
from server.readiness import STALL_TIMEOUT_S
from server.safety import Safety

ENGINE_OPTIONS = "--"
KEYS = "keys"
BOUNDS = Bounds()
SAFETY = Safety()
OBJECTIVE = Objective()
LEVEL = os.environ.get("MALMOI_LOGGING_LEVEL", "INFO")
T = TypeVar("T")
Maybe = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""An option whose text says what holds without it."""
CONFIG = (tyro.conf.DisallowNone,)


@unfolded
def serve(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: Maybe[str] = None,
    template: Literal["auto", "own"] = "auto",
    verify_key: Maybe[Path] = None,
    short_lived: bool = False,
    drain_timeout: float = 30.0,
    keys: Maybe[Path] = None,
    open_to_all: bool = False,
    bounds: Annotated[Bounds, tyro.conf.arg(name="")] = BOUNDS,
    safety: Annotated[Safety, tyro.conf.arg(name="")] = SAFETY,
    objective: Annotated[Objective, tyro.conf.arg(name="")] = OBJECTIVE,
    stall_timeout: float = STALL_TIMEOUT_S,
    max_restarts: int = 0,
    traces: Maybe[str] = None,
) -> None:
    """Serve a checkpoint behind an OpenAI-compatible API with latency metrics.

    Options of `vllm serve` may follow after `--`.

    Keys are made with `malmoi-serve keys`.

    Args:
        checkpoint: a checkpoint directory, or a Hugging Face Hub id.
        host: address to listen on; 0.0.0.0 for every interface.
        port: port to listen on; 0 takes a free one.
        name: model name in the API; the directory's name if not given.
        template: auto: the checkpoint's own chat template, else KoRAE's; own: its own or none at all.
        verify_key: serve only what the owner of this public key has signed: a PEM file, or one of the
            certificates that vouch for the signer. Nothing unsigned or altered is served.
        short_lived: on a CPU, start sooner and serve slower (no compilation).
        drain_timeout: seconds that running requests are given to finish on SIGTERM.
        keys: file of the keys that may use it (malmoi-serve keys add); read again when it changes.
        open_to_all: without keys, let in anyone, even on an address that others than this machine reach.
        stall_timeout: seconds without a decoding step, while there is work, after which /ready turns 503; after
            ten times as many the engine is given up. Longer than any step: a whole chunk of a prompt is one.
        max_restarts: run in a process of its own that is started again when it ends by itself, at most so many
            times in ten minutes; 0: end when the engine does, as systemd and Kubernetes like it.
        traces: send OpenTelemetry traces to this collector, e.g. http://localhost:4317.
    """
    if max_restarts:
        raise SystemExit(_supervise(host, port, max_restarts))
    from server.launch import Options, prepare

    options = Options(
        checkpoint=checkpoint,
        host=host,
        port=port,
        name=name,
        template=template,
        verify_key=verify_key,
        short_lived=short_lived,
        drain_timeout_s=drain_timeout,
        bounds=bounds,
        safety=safety,
        keys=keys,
        open_to_all=open_to_all,
        objective=objective,
        stall_timeout_s=stall_timeout,
        traces=traces,
        engine_options=_engine_options(),
    )
    logging.getLogger(__name__).info("checking %s", checkpoint)
    launch = prepare(options)

    import uvloop

    from server.app import serve as serve_until_stopped

    logging.getLogger(__name__).info("starting the engine; on a CPU this takes about half a minute")

    def announce(url: str) -> None:
        say(announcement(url, launch.name))
        tell_supervisor()

    uvloop.run(serve_until_stopped(launch, announce))


def _supervise(host: str, port: int, max_restarts: int) -> int:
    """The exit code of a server that is started again where it ends by itself, on the same port."""
    from server.launch import bind
    from server.supervisor import Supervisor

    with bind(host, port) as probe:
        port = probe.getsockname()[1]
    last = ["--port", str(port), "--max-restarts", "0", ENGINE_OPTIONS, *_engine_options()]
    return Supervisor([sys.executable, "-P", "-m", "server", *_own_options(), *last], max_restarts).run()


def say(text: str) -> None:
    """Prints `text`; a server serves on where its standard output has gone or is a file on a full disk."""
    try:
        print(text, flush=True)
    except OSError as error:
        logging.getLogger(__name__).warning("standard output: %s", error)


def announcement(url: str, name: str) -> str:
    """What is printed once the server answers: where it is, and a request to paste."""
    body = {"model": name, "messages": [{"role": "user", "content": "대한민국의 수도는 어디인가요?"}]}
    return (
        f"malmoi serves {name} at {url}\n\n"
        f"curl -s {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body, ensure_ascii=False)}'\n"
    )


def _own_options() -> list[str]:
    arguments = sys.argv[1:]
    return arguments[: arguments.index(ENGINE_OPTIONS)] if ENGINE_OPTIONS in arguments else arguments


def _engine_options() -> list[str]:
    arguments = sys.argv[1:]
    return arguments[arguments.index(ENGINE_OPTIONS) + 1 :] if ENGINE_OPTIONS in arguments else []


def main() -> None:
    """Console script."""
    logging.basicConfig(level="WARNING", format="%(message)s", stream=sys.stderr)
    logging.getLogger("server").setLevel(LEVEL)
    die_with_supervisor()
    own = _own_options()
    program = Path(sys.argv[0]).name.replace("__main__.py", "malmoi-serve")
    with reported_in_one_line():
        if own[:1] == [KEYS]:
            from server.key_commands import COMMANDS

            keys = f"{program} {KEYS}"
            tyro.extras.subcommand_cli_from_dict(COMMANDS, args=own[1:], prog=keys, config=CONFIG)
        else:
            tyro.cli(serve, args=own, prog=program, config=CONFIG)


if __name__ == "__main__":
    main()
