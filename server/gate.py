"""The one gate around vLLM's app: which routes exist, who may use them, how much, and when it is too much.

Pure ASGI and outermost, so nothing of vLLM's app is reached without passing it, and a token costs microseconds.
Paths are matched on `scope["path"]` alone, exactly. What a request passes, in this order: its route (404), its
key (401, 403), whether the server takes work (503), its body (408, 413), what it asks for (400), its quota
(429), a slot (429), the safety check (400); then it is vLLM's. Each of these may raise a Refusal, which is
answered here.

Where a request's life is observed: server.life.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from server.accounts import Account
from server.bounds import Bounds
from server.checks import Checked, Rules, shown, with_salt
from server.door import Door
from server.exchange import RECEIVED_AT, App, ClientGone, Exchange, Receive, Scope, Send
from server.guard import Guard
from server.keys import Key, KeyFile
from server.life import LIFE, Life
from server.metrics import Measurement, Metrics
from server.refusal import (
    Forbidden,
    Header,
    NotFound,
    Refusal,
    Unavailable,
    WrongMethod,
)
from server.routes import DOCUMENT, HEALTH, READY, ROUTES, USAGE, Route
from server.safety import Check
from server.slots import Place, Slots

__all__ = ["HEALTH", "READY", "Gate"]

RETRY_AFTER_S = 5
TOKENIZING, TOKENIZING_ROOM = 2, 64
"""Requests to tokenize that run, and that wait: vLLM has one thread for them, and would queue without end."""
WARNING = b"x-malmoi-warning"


class Gate:
    """ASGI application that lets through to `app` what may pass, counts and measures it.

    is_alive: whether the engine can still answer.
    why_not_ready: what else keeps the server from taking work, asked by /ready; None for nothing.
    keys: None lets in anyone.
    check: of prompts and answers; None for none.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        *,
        is_alive: Callable[[], bool],
        rules: Rules,
        slots: Slots,
        keys: KeyFile | None = None,
        why_not_ready: Callable[[], str | None] = lambda: None,
        check: Check | None = None,
    ) -> None:
        self.is_alive = is_alive
        self.slots = slots
        self.tokenizing = Slots(TOKENIZING, TOKENIZING_ROOM, unit="requests")
        self.is_warm = False
        """Set once the engine has answered a first request."""
        self.is_draining = False
        self.document: dict[str, Any] = {}
        """What is said of the API at DOCUMENT, in OpenAPI's terms."""
        self._app = app
        self._metrics = metrics
        self._rules = rules
        self._door = Door(keys)
        self._why_not_ready = why_not_ready
        self._check = check
        self._open: set[Exchange] = set()

    @property
    def num_running(self) -> int:
        """Requests that were let in and have not ended."""
        return len(self._open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    def drain(self) -> None:
        """From now on refuses new work, and what waits for its turn; what is running goes on."""
        self.is_draining = True
        self.slots.close(self._closed)
        self.tokenizing.close(self._closed)

    @property
    def _bounds(self) -> Bounds:
        return self._rules.bounds

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        route = ROUTES.get(path)
        received_at = scope.get(RECEIVED_AT) or time.perf_counter()
        life = Life(route=route.name if route else "other", received_at=received_at)
        measurement = Measurement(metrics=self._metrics, life=life, clock=time.perf_counter)
        exchange = Exchange(scope, receive, send, measurement)
        if path in (HEALTH, READY):
            await self._answer_probe(path, scope, exchange)
            return
        LIFE.set(life)
        self._open.add(exchange)
        account = None
        try:
            if route is None:
                raise NotFound(f"There is no {path} here.")
            if _is_preflight(scope):
                await self._app(scope, exchange.receive, exchange.send)
                life.outcome = exchange.outcome()
                return
            if scope["method"] not in route.methods:
                raise _wrong_method(path, route.methods)
            account = self._door.account(route, scope["headers"])
            life.key, life.group = account.key.id, account.key.group
            exchange.more_headers = account.quota.headers
            await self._pass(route, account, scope, exchange)
            life.outcome = exchange.outcome()
        except Refusal as refusal:
            life.outcome = refusal.outcome
            await exchange.refuse(refusal)
        except ClientGone:
            life.outcome = "disconnected"
        except BaseException:
            life.outcome = "disconnected" if exchange.stopped == "gone" else "failed"
            raise
        finally:
            self._open.discard(exchange)
            measurement.finish(life.outcome)
            if account:
                account.record(life)

    async def _pass(self, route: Route, account: Account, scope: Scope, exchange: Exchange) -> None:
        if scope["path"] == USAGE:
            await exchange.answer_json(200, account.report(self._door.since))
        elif scope["path"] == DOCUMENT:
            await exchange.answer_json(200, self.document)
        elif not route.works:
            await self._app(scope, exchange.receive, exchange.send)
        else:
            if self.is_draining or not self.is_alive():
                raise self._closed()
            body = await exchange.read_body(self._bounds.max_body_bytes, self._bounds.body_timeout_s)
            checked = self._rules.check(scope["path"], body)
            _check_model(account.key, checked)
            _note(checked, exchange)
            generates = route.works == "in a slot"
            with account.quota.reserved(checked.num_tokens if generates else 0, exchange.life):
                if account.cache_salt and generates and checked.document:
                    body = with_salt(body, account.cache_salt)
                exchange.hand_over(body, self._deadline(exchange.life))
                exchange.life.queued_at = time.perf_counter()
                if generates:
                    await self._generate(checked, scope, exchange)
                else:
                    await self._tokenize(scope, exchange)
                await exchange.end()

    async def _generate(self, checked: Checked, scope: Scope, exchange: Exchange) -> None:
        place = self.slots.ask(exchange.life.key, checked.num_sequences)
        try:
            await self._wait_for_turn(self.slots, place, exchange)
            if self._check is not None:
                await self._check.prompt(checked.document)
            exchange.life.admitted_at = time.perf_counter()
            send = Guard(exchange, self._check).send if self._check is not None else exchange.send
            await self._app(scope, exchange.receive, send)
        finally:
            self.slots.give_back(place, has_worked=exchange.life.completion_tokens > 0)

    async def _tokenize(self, scope: Scope, exchange: Exchange) -> None:
        place = self.tokenizing.ask(exchange.life.key, 1)
        try:
            await self._wait_for_turn(self.tokenizing, place, exchange)
            exchange.life.admitted_at = time.perf_counter()
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self.tokenizing.give_back(place)

    async def _wait_for_turn(self, slots: Slots, place: Place, exchange: Exchange) -> None:
        if place.turn and not await exchange.wait_for(place.turn, self._bounds.queue_timeout_s):
            raise slots.overloaded(f"No turn came within {self._bounds.queue_timeout_s:g} s")
        if not self.is_alive():
            raise self._closed()

    def _deadline(self, life: Life) -> float:
        """When the request must be done, by the event loop's clock."""
        spent_s = time.perf_counter() - life.received_at
        return asyncio.get_running_loop().time() + self._bounds.request_timeout_s - spent_s

    def _closed(self) -> Unavailable:
        reason = "is shutting down" if self.is_draining else "has lost its engine"
        return Unavailable(f"The server {reason}; try again.", retry_after_s=RETRY_AFTER_S)

    async def _answer_probe(self, path: str, scope: Scope, exchange: Exchange) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await exchange.refuse(_wrong_method(path, ("GET", "HEAD")))
            return
        problem = self._problem(path)
        retry_after = [(b"retry-after", str(RETRY_AFTER_S).encode())] if problem else []
        await exchange.answer_json(503 if problem else 200, {"status": problem or "ok"}, retry_after)

    def _problem(self, path: str) -> str | None:
        if not self.is_alive():
            return "the engine is dead"
        if path == HEALTH:
            return None
        if self.is_draining:
            return "draining"
        return self._why_not_ready() if self.is_warm else "warming up"


def _is_preflight(scope: Scope) -> bool:
    """Whether a browser asks what pages of another origin may; vLLM knows, by its --allowed-origins."""
    names = {name for name, _ in scope["headers"]}
    return scope["method"] == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names


def _wrong_method(path: str, methods: tuple[str, ...]) -> WrongMethod:
    allowed = ", ".join(methods)
    return WrongMethod(f"{path} answers {allowed}.", headers=[(b"allow", allowed.encode())])


def _check_model(key: Key, checked: Checked) -> None:
    """Raises Forbidden for a model that the key may not ask for; not naming one asks for the first."""
    if key.models is not None and checked.model not in key.models:
        may = ", ".join(key.models)
        raise Forbidden(f"This key may ask for {may}; set model to it.", param="model")


def _note(checked: Checked, exchange: Exchange) -> None:
    """What the answer's headers, and its numbers, have to say of the request."""
    exchange.life.echoes = bool(checked.document.get("echo"))
    if checked.unknown_fields:
        quota, names = exchange.more_headers, ", ".join(shown(checked.unknown_fields))
        warning: Header = (WARNING, f"unknown fields were ignored: {names}".encode())
        exchange.more_headers = lambda: [*quota(), warning]
