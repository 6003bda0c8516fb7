"""uvicorn's HTTP protocol, with bounds of what it leaves open: heads, silence, unread answers, pipelines.

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
HEAD_TOO_LARGE = f"The head of a request may have {MAX_HEAD_BYTES} bytes."


class StampedProtocol(HttpToolsProtocol):
    """Starts the clock of every latency at the first byte, before headers and body are read.

    A head, or a connection's first byte, that does not come within `header_timeout_s` ends the connection. So
    does a client that takes nothing of what is written to it for `write_timeout_s`.

    One request at a time: one that begins before its client can have read the answer before it is not looked
    at, and the connection ends after that answer (RFC 9112, section 9.3.2: who pipelines sends it again).
    uvicorn would stop reading, and so not notice that the client goes.
    """

    header_timeout_s = 15.0
    write_timeout_s = 60.0
    _begun_at: float | None = None
    """The first byte of the head that is read, or was last."""
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    """That came since the last head was complete, or the last of a body: chunks have sizes and trailers."""
    _in_head = False
    _is_last = False
    """Nothing more is read of this connection."""
    _unread_bytes = 0
    """That were written and not taken, when that number last changed."""
    _unread_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        super().connection_made(cast(Any, transport))
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what has arrived."""
        if self._is_last:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._end(HeadTooLarge(HEAD_TOO_LARGE))
        elif self.cycle is not None and self.cycle.response_complete:  # uvicorn's timer has been stopped
            self._start_timer()

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of each request."""
        super().on_message_begin()
        if self._is_early():
            self._take_no_more()
        if self._is_last:
            return
        self._begun_at = cast(Scope, self.scope)[RECEIVED_AT] = time.perf_counter()
        self._in_head = True
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Called by the parser after the last header of each request."""
        if self._is_last:
            return
        self._in_head, self._head_bytes = False, 0
        self._stop_timer()
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._end(HeadTooLarge(HEAD_TOO_LARGE))
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by the parser with a part of a body."""
        if not self._is_last:
            self._head_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser after the last byte of each request."""
        if not self._is_last:
            super().on_message_complete()

    def give_up_if_stalled(self, now: float) -> None:
        """Ends the connection of a client that has long taken nothing; to be called regularly.

        What is written to it waits in the transport, which would keep it, and a closed connection, for ever.

        now: in seconds, of any one clock.
        """
        unread_bytes = self.transport.get_write_buffer_size()
        if not unread_bytes or unread_bytes != self._unread_bytes:
            self._unread_bytes, self._unread_since = unread_bytes, now
        elif now - self._unread_since > self.write_timeout_s:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are no HTTP."""
        self._end(Invalid(msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Called for a request that asks for another protocol; it is answered in this one."""

    def _is_early(self) -> bool:
        """Whether a request has begun before its client can have read the whole of the last answer."""
        answer = self.cycle
        if answer is None or answer.response_complete:
            return self.flow.write_paused
        return answer.chunked_encoding is not False or answer.expected_content_length > 0

    def _take_no_more(self) -> None:
        """Ends the connection after the answer that is written."""
        self._is_last = True
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _waited_too_long(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._end(TooSlow(f"The head of the request did not arrive within {self.header_timeout_s:g} s."))
        elif not self.transport.is_closing():
            self.transport.close()

    def _end(self, refusal: Refusal) -> None:
        """Ends the connection, saying why unless that would be in the middle of another request's answer."""
        if self._is_last or self.transport.is_closing():
            return
        self._is_last = True
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

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._waited_too_long)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def protocol_with(header_timeout_s: float, write_timeout_s: float = 60.0) -> type[StampedProtocol]:
    """The protocol with these time-outs; uvicorn takes a class."""
    timeouts = {"header_timeout_s": header_timeout_s, "write_timeout_s": write_timeout_s}
    return type("TimedProtocol", (StampedProtocol,), timeouts)
