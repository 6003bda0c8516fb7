"""One request and its answer while they pass the gate.

It is read within bounds, ended when its client goes, and never answered with 200 and an error inside.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Literal

import msgspec

from server.answer import EVENT_END
from server.life import Life, Outcome
from server.metrics import Measurement
from server.refusal import Header, Late, Refusal, TooLarge, TooSlow

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Stop = Literal["gone", "late", "filtered", "failed"]
"""The client went, or does not read; the deadline passed; the safety check cut it off, or was not to be had."""
RECEIVED_AT = "malmoi.received_at"
"""Scope key: time.perf_counter() at the first byte of the request (server.protocol)."""
DISCONNECT: Message = {"type": "http.disconnect"}
ERROR_EVENT = b'data: {"error"'
"""How vLLM begins the event of a stream that holds an error."""
LATE = "The answer took too long."
ROLE = b'"delta":{"role":'
"""In the events that a chat stream begins with, before the engine's first token is looked at."""
DISCARD_S = 5.0
"""How long the rest of a refused request's body is read and thrown away, so that its client can read why."""
LAST_WORDS_S = 1.0
"""How long the end of a late stream may take to be written to a client that reads slowly."""


class ClientGone(Exception):  # noqa: N818
    """Nobody is there to answer."""


class Exchange:
    """`send` and `receive` are the app's; `stopped` says why an answer was broken off."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, measurement: Measurement) -> None:
        self.life: Life = measurement.life
        self.more_headers: Callable[[], list[Header]] = list
        """What the answer's headers are to have besides its own, asked when they are written."""
        self.stopped: Stop | None = None
        self._scope = scope
        self._receive = receive
        self._send = send
        self._measurement = measurement
        self._deadline: float | None = None
        self._listening: asyncio.Timeout | None = None
        """Ends the app's wait for the client's going."""
        self._body: bytes | None = None
        self._unread = _has_body(scope)
        self._held_start: Message | None = None
        self._held_parts = b""
        self._is_stream = False
        self._failure: Refusal | None = None
        self._is_over = False
        """Nothing more may be written: the answer is complete, or was replaced."""
        self._status = 0

    async def read_body(self, max_bytes: int, timeout_s: float) -> bytes:
        """The whole body of the request.

        Raises: TooLarge, TooSlow; ClientGone.
        """
        if _content_length(self._scope) > max_bytes:
            raise TooLarge(f"The body may have {max_bytes} bytes.")
        body = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                while self._unread:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self.stopped = "gone"
                        raise ClientGone
                    body += message.get("body", b"")
                    self._unread = message.get("more_body", False)
                    if len(body) > max_bytes:
                        raise TooLarge(f"The body may have {max_bytes} bytes.")
        except TimeoutError:
            raise TooSlow(f"The body did not arrive within {timeout_s:g} s.") from None
        return bytes(body)

    def hand_over(self, body: bytes, deadline: float) -> None:
        """What the app is to receive, and when it is told that the client has gone, even if it has not.

        `deadline` by the event loop's clock, in seconds.
        """
        self._body, self._deadline = body, deadline

    async def wait_for(self, turn: asyncio.Future[None], timeout_s: float) -> bool:
        """Whether `turn` came within that time.

        Raises: what `turn` raises; ClientGone; Late, if the deadline comes first.
        """
        assert self._deadline is not None
        left_s = self._deadline - asyncio.get_running_loop().time()
        going = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait(
                {turn, going}, timeout=min(timeout_s, left_s), return_when=asyncio.FIRST_COMPLETED
            )
            if going.done():
                raise ClientGone
            if turn.done():
                turn.result()
            elif left_s < timeout_s:
                raise Late(LATE)
            return turn.done()
        finally:
            going.cancel()
            if turn.done() and not turn.cancelled():
                turn.exception()  # read, so that asyncio does not report it

    async def receive(self) -> Message:
        """The app's: the body first, then that the client has gone."""
        if self._deadline is None:  # of a route that takes no body from us
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._client_went()
            return message
        if self._body is not None:
            message = {"type": "http.request", "body": self._body, "more_body": False}
            self._body = None
            return message
        listening = asyncio.timeout_at(self._deadline)
        try:
            async with listening:
                self._listening = listening
                await self._until_gone()
        except TimeoutError:
            if self.stopped is None and not self._is_over:
                self.stopped = "late"
        finally:
            if self._listening is listening:  # else another has taken over
                self._listening = None
        return DISCONNECT

    def stop(self, why: Stop) -> None:
        """From now on the app is told that its client has gone, and what it sends is dropped."""
        if self.stopped is None:
            self.stopped = why
            self._deadline = 0.0
            if self._listening is not None:
                self._listening.reschedule(0.0)

    def fail(self, refusal: Refusal) -> None:
        """Stops, for a reason that `end` is to give."""
        self._failure = refusal
        self.stop("failed")

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_went()

    def _client_went(self) -> None:
        if self.stopped is None and not self._is_over:
            self.stopped = "gone"

    async def send(self, message: Message) -> None:
        """The app's. The status of a stream is written with its first text: an error before it is a status."""
        if self._is_over or self.stopped:
            return
        if message["type"] == "http.response.start":
            self._is_stream = self._measurement.reader.is_stream = _is_event_stream(message)
            if self._is_stream:
                self._held_start = message
            else:
                await self._begin(message["status"], message.get("headers", ()))
            return
        body = message.get("body", b"")
        if self._held_start is not None:
            if body.startswith(ERROR_EVENT):
                await self._answer_error(body)
                return
            self._held_parts += body
            if ROLE in body and body.count(ROLE) == body.count(EVENT_END) and message.get("more_body", False):
                return
            start, self._held_start = self._held_start, None
            message = {**message, "body": self._held_parts}
            await self._begin(start["status"], start.get("headers", ()))
        self._is_over = not message.get("more_body", False)
        self._measurement.wrote(message.get("body", b""))
        await self._send(message)

    async def end(self) -> None:
        """After the app: says why an answer was broken off; in a stream that has begun, as vLLM does.

        Raises: the refusal, if nothing was said yet.
        """
        if self.stopped:  # vLLM has cancelled its handler, but not awaited it: now it tells of its tokens
            await asyncio.sleep(0)
        refusal = Late(LATE) if self.stopped == "late" else self._failure
        if refusal is None or self._is_over:
            return
        if not self._status:
            raise refusal
        if self._is_stream:
            part = b"data: " + msgspec.json.encode(refusal.body) + b"\n\ndata: [DONE]\n\n"
            self._measurement.wrote(part)
            try:
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._send({"type": "http.response.body", "body": part, "more_body": False})
            except TimeoutError:
                return
            self._is_over = True

    async def answer_json(
        self, status: int, body: object, headers: Sequence[Header] = (), *, more_body: bool = False
    ) -> None:
        """Answers instead of the app. With `more_body` the answer is whole for its reader, but not yet over."""
        raw = msgspec.json.encode(body)
        own = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await self._begin(status, [*own, *headers])
        await self._send({"type": "http.response.body", "body": raw, "more_body": more_body})
        self._is_over = True

    async def refuse(self, refusal: Refusal) -> None:
        """Answers instead of the app."""
        headers = refusal.headers
        keep_reading = self._unread
        if keep_reading:
            headers.append((b"connection", b"close"))
        await self.answer_json(refusal.status, refusal.body, headers, more_body=keep_reading)
        if keep_reading:
            await self._discard()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def outcome(self) -> Outcome:
        """How it ended, once the app is done."""
        if self.stopped in ("gone", "filtered"):
            return "disconnected" if self.stopped == "gone" else "filtered"
        if self.stopped or self._status >= 500 or not self._is_over or self._measurement.failed_inside():
            return "failed"
        return "invalid" if self._status >= 400 else "ok"

    async def _begin(self, status: int, headers: Iterable[Header]) -> None:
        self._status = status
        self.life.started_at = time.perf_counter()
        more = [*self.more_headers(), *self._measurement.headers()]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *more]})

    async def _answer_error(self, event: bytes) -> None:
        """An error that a stream begins with, as the answer that it is."""
        document = msgspec.json.decode(event.split(b"\n", 1)[0].removeprefix(b"data: "))
        code = document["error"].get("code")
        await self.answer_json(code if isinstance(code, int) and 400 <= code < 600 else 500, document)

    async def _discard(self) -> None:
        try:
            async with asyncio.timeout(DISCARD_S):
                while self._unread:
                    message = await self._receive()
                    self._unread = message["type"] == "http.request" and message.get("more_body", False)
        except TimeoutError:
            pass


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope.get("headers", ()) if key == name), None)


def _content_length(scope: Scope) -> int:
    value = _header(scope, b"content-length") or b"0"
    return int(value) if value.isdigit() else 0


def _has_body(scope: Scope) -> bool:
    return _content_length(scope) > 0 or _header(scope, b"transfer-encoding") is not None


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )
