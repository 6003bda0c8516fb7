"""A client at the gate that can leave in the middle, read slowly, or send its body in parts."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from server.exchange import Message
from server.gate import Gate


class Visitor:
    """One request, given to the gate as an ASGI server would give it."""

    def __init__(
        self,
        gate: Gate,
        path: str,
        body: object = None,
        *,
        parts: Sequence[bytes] | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        method: str = "POST",
    ) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        """Cleared, what is written to it waits."""
        self.reads.set()
        raw = parts if parts is not None else [json.dumps(body).encode()]
        self._messages = [
            {"type": "http.request", "body": part, "more_body": index < len(raw) - 1}
            for index, part in enumerate(raw)
        ]
        own = [(b"content-type", b"application/json")]
        if not any(name == b"transfer-encoding" for name, _ in headers):
            own.append((b"content-length", str(sum(map(len, raw))).encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*own, *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
        }
        self.served = asyncio.create_task(gate(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.reads.wait()
        if not self.gone.is_set():
            self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def is_whole(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", False)

    def json(self) -> Any:
        return json.loads(self.body)


async def settle() -> None:
    """Lets everything that can happen now happen."""
    for _ in range(50):
        await asyncio.sleep(0)
