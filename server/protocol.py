"""uvicorn's HTTP protocol, with a stamp of a request's first byte, and bounds of time and size for its head.

What is refused here has not become a request yet; it is answered in the same shape as at the gate.
"""

import asyncio
import time
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.exchange import RECEIVED_AT, Scope
from server.metrics import server_timing
from server.refusal import HeadTooLarge, Invalid, Refusal, TooSlow

MAX_HEAD_BYTES = 64 * 1024


class StampedProtocol(HttpToolsProtocol):
    """Starts the clock of every latency at the first byte, before headers and body are read.

    A head, or a connection's first byte, that does not come within `header_timeout_s` ends the connection.
    """

    header_timeout_s = 15.0
    _begun_at: float | None = None
    """The first byte of the head that is read, or was last."""
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        super().connection_made(cast(Any, transport))
        self._head_timer = self.loop.call_later(self.header_timeout_s, self._waited_too_long)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what has arrived."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._end(HeadTooLarge(f"The head of a request may have {MAX_HEAD_BYTES} bytes."))

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of each request."""
        super().on_message_begin()
        self._begun_at = cast(Scope, self.scope)[RECEIVED_AT] = time.perf_counter()
        self._in_head, self._head_bytes = True, 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._waited_too_long)

    def on_headers_complete(self) -> None:
        """Called by the parser after the last header of each request."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are no HTTP."""
        self._end(Invalid(msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Called for a request that asks for another protocol; it is answered in this one."""

    def _waited_too_long(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._end(TooSlow(f"The head of the request did not arrive within {self.header_timeout_s:g} s."))
        elif not self.transport.is_closing():
            self.transport.close()

    def _end(self, refusal: Refusal) -> None:
        """Ends the connection, saying why unless that would be in the middle of another request's answer."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            now = time.perf_counter()
            body = msgspec.json.encode(refusal.body)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                server_timing({"total": now - (self._begun_at or now)}),
            ]
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[refusal.status] + lines + b"\r\n" + body)
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def protocol_with(header_timeout_s: float) -> type[StampedProtocol]:
    """The protocol with that time-out; uvicorn takes a class."""
    return type("TimedProtocol", (StampedProtocol,), {"header_timeout_s": header_timeout_s})
