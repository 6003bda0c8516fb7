"""The one gate around vLLM's app: which routes exist, when requests are refused, what is measured.

Pure ASGI and outermost, so nothing of vLLM's app is reached without passing it, and a token costs
microseconds. Paths are matched on `scope["path"]` alone, exactly.
"""

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from server.metrics import Measurement, Metrics, Outcome

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RECEIVED_AT = "malmoi.received_at"
"""Scope key: time.perf_counter() at the first byte of the request (server.protocol)."""
RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Route:
    """A path that exists. `works`: it needs the engine, so it is refused while draining."""

    name: str
    works: bool


ROUTES = {
    "/v1/chat/completions": Route("chat", works=True),
    "/v1/completions": Route("completions", works=True),
    "/tokenize": Route("tokenize", works=True),
    "/detokenize": Route("tokenize", works=True),
    "/v1/models": Route("models", works=False),
    "/metrics": Route("metrics", works=False),
}
HEALTH, READY = "/health", "/ready"


class Gate:
    """ASGI application that lets through to `app` what is on the allow-list, counts and measures it.

    `is_alive`: whether the engine can still answer.
    """

    def __init__(self, app: App, metrics: Metrics, *, is_alive: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._is_alive = is_alive
        self.num_running = 0
        """Requests that were let in and have not ended."""
        self.is_warm = False
        """Set once the engine has answered a first request."""
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._serve(scope, receive, send)

    def drain(self) -> None:
        """From now on refuses new work; what is running goes on."""
        self.is_draining = True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in (HEALTH, READY):
            await self._answer_probe(path, scope["method"], send)
            return
        route = ROUTES.get(path)
        measurement = Measurement(
            metrics=self._metrics,
            route=route.name if route else "other",
            received_at=scope.get(RECEIVED_AT) or time.perf_counter(),
            clock=time.perf_counter,
        )
        if route is None:
            await send_error(send, 404, "NotFoundError", f"There is no {path} here.")
            measurement.finish("invalid")
        elif route.works and (self.is_draining or not self._is_alive()):
            reason = "is shutting down" if self.is_draining else "has lost its engine"
            await send_error(
                send, 503, "ServiceUnavailableError", f"The server {reason}; try again.", RETRY_AFTER_S
            )
            measurement.finish("refused")
        else:
            await self._let_in(scope, receive, send, measurement)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send, measurement: Measurement) -> None:
        status, complete, gone = 500, False, False

        async def watched_receive() -> Message:
            nonlocal gone
            message = await receive()
            if message["type"] == "http.request":
                measurement.received(message.get("body", b""))
            gone = gone or (message["type"] == "http.disconnect" and not complete)
            return message

        async def measured_send(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                measurement.reader.is_stream = _is_event_stream(message)
            elif message["type"] == "http.response.body":
                measurement.wrote(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        self.num_running += 1
        try:
            await self._app(scope, watched_receive, measured_send)
        finally:
            self.num_running -= 1
            measurement.finish(_outcome(status, complete, gone, measurement))

    async def _answer_probe(self, path: str, method: str, send: Send) -> None:
        if method not in ("GET", "HEAD"):
            await send_error(send, 405, "MethodNotAllowed", f"{path} answers GET.")
            return
        problem = self._problem(path)
        body = {"status": problem or "ok"}
        await send_json(send, 503 if problem else 200, body, RETRY_AFTER_S if problem else None)

    def _problem(self, path: str) -> str | None:
        if not self._is_alive():
            return "the engine is dead"
        if path == READY and self.is_draining:
            return "draining"
        if path == READY and not self.is_warm:
            return "warming up"
        return None


async def send_error(
    send: Send, status: int, kind: str, message: str, retry_after_s: int | None = None
) -> None:
    """Sends an error in the shape OpenAI clients read."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    await send_json(send, status, {"error": error}, retry_after_s)


async def send_json(send: Send, status: int, body: object, retry_after_s: int | None = None) -> None:
    """Sends a whole JSON answer."""
    raw = json.dumps(body, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )


def _outcome(status: int, complete: bool, gone: bool, measurement: Measurement) -> Outcome:
    if gone:
        return "disconnected"
    if status >= 500 or not complete or measurement.failed_inside():
        return "failed"
    return "invalid" if status >= 400 else "ok"
