"""uvicorn's HTTP protocol, with the moment a request's first byte arrived written into its scope."""

import time
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.gate import RECEIVED_AT, Scope


class StampedProtocol(HttpToolsProtocol):
    """Starts the clock of every latency at the first byte, before headers and body are read."""

    def on_message_begin(self) -> None:
        """Called by the parser at the first byte of each request."""
        super().on_message_begin()
        cast(Scope, self.scope)[RECEIVED_AT] = time.perf_counter()
