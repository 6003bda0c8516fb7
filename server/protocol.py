"""uvicorn's HTTP protocol, with a stamp of a request's first byte, and bounds of time and size for its head."""

import asyncio
import time
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.exchange import RECEIVED_AT, Scope

MAX_HEAD_BYTES = 64 * 1024
TOO_SLOW = b"408 Request Timeout"
TOO_LARGE = b"431 Request Header Fields Too Large"


class StampedProtocol(HttpToolsProtocol):
    """Starts the clock of every latency at the first byte, before headers and body are read.

    A head, or a connection's first byte, that does not come within `header_timeout_s` ends the connection.
    """

    header_timeout_s = 15.0
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
                self._end(TOO_LARGE)

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of each request."""
        super().on_message_begin()
        cast(Scope, self.scope)[RECEIVED_AT] = time.perf_counter()
        self._in_head, self._head_bytes = True, 0
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._waited_too_long)

    def on_headers_complete(self) -> None:
        """Called by the parser after the last header of each request."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _waited_too_long(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._end(TOO_SLOW)
        elif not self.transport.is_closing():
            self.transport.close()

    def _end(self, status: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status
            self.transport.write(head)
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def protocol_with(header_timeout_s: float) -> type[StampedProtocol]:
    """The protocol with that time-out; uvicorn takes a class."""
    return type("TimedProtocol", (StampedProtocol,), {"header_timeout_s": header_timeout_s})
