"""Our loop around the gate, in place of vLLM's: listen, watch, drain, end."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn

from malmoi.errors import EngineError, ServeError
from server.gate import Gate
from server.launch import Launch, listen
from server.protocol import StampedProtocol, protocol_with

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.5
"""Between two looks at the engine and the connections; a wake-up of the event loop costs it about 0.1 ms."""
DEAD_ENGINE_GRACE_S = 2.0
"""How long probes are still answered, with 503, after the engine has died."""
DRAIN_INTERVAL_S = 0.05
LINGER_S = 3
"""How long, after the drain, what is written may still be on its way to clients that read slowly."""


class NoSignalServer(uvicorn.Server):
    """uvicorn's server without its signal handlers: the loop below has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    def give_up_stalled(self) -> None:
        """Ends connections whose clients leave their answers unread for too long; to be called regularly."""
        now = time.monotonic()
        for connection in cast("set[StampedProtocol]", self.server_state.connections):
            connection.give_up_if_stalled(now)


async def serve_gate(
    gate: Gate, launch: Launch, announce: Callable[[str], None], log_config: dict[str, Any] | None = None
) -> None:
    """Serves `gate` until a signal has been drained, or the engine dies. `announce` is told the URL.

    Raises: EngineError if the engine dies, even while draining; ServeError if the port is another's by now.
    """
    hurry = drain_on_signals(gate)
    server = _listening_server(gate, launch, log_config)
    serving = asyncio.create_task(server.serve(sockets=[launch.listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            announce(_url(launch))
        while not (gate.is_draining or not gate.is_alive() or serving.done()):
            await asyncio.sleep(WATCH_INTERVAL_S)
            server.give_up_stalled()
        await _drain(gate, server, hurry, launch.drain_timeout_s)
        if not gate.is_alive():
            await asyncio.sleep(DEAD_ENGINE_GRACE_S)
            raise EngineError(
                "engine",
                expected="a running engine process",
                found="one that has died, or does not decode any more",
                next_step="restart the server (--max-restarts does it by itself); the lines above say more",
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


async def _drain(gate: Gate, server: NoSignalServer, hurry: asyncio.Event, timeout_s: float) -> None:
    """Lets the running requests finish, but no longer than the engine lives, or a second signal allows."""
    deadline = time.monotonic() + timeout_s
    while gate.num_running and gate.is_alive():
        server.give_up_stalled()
        if hurry.is_set() or time.monotonic() > deadline:
            why = "by a second signal" if hurry.is_set() else f"after {timeout_s:g} s of draining"
            logger.warning("answers cut off %s: %d", why, gate.num_running)
            return
        await asyncio.sleep(DRAIN_INTERVAL_S)


def _listening_server(gate: Gate, launch: Launch, log_config: dict[str, Any] | None) -> NoSignalServer:
    """uvicorn around `gate`; raises ServeError where it cannot listen or has no use for the certificates."""
    try:
        server = NoSignalServer(_uvicorn_config(gate, launch, log_config))
        listen(launch.listener)  # uvloop would not say that it cannot
    except OSError as error:
        raise ServeError(
            _url(launch),
            expected="an address to listen on and, for https, certificates",
            found=str(error),
            next_step="stop what uses it, choose another (--port N), or mend the --ssl options after --",
        ) from error
    return server


def _uvicorn_config(gate: Gate, launch: Launch, log_config: dict[str, Any] | None) -> uvicorn.Config:
    arguments = launch.arguments
    config = uvicorn.Config(
        gate,
        http=protocol_with(launch.bounds.header_timeout_s, launch.bounds.write_timeout_s),
        ws="none",
        lifespan="on",
        log_config=log_config,
        log_level=arguments.uvicorn_log_level,
        access_log=not arguments.disable_uvicorn_access_log,
        timeout_keep_alive=launch.bounds.keep_alive_timeout_s,  # type: ignore[arg-type]  # a fraction will do
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
