"""Streams of the real server, read while something happens to it, and held to what was promised of them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import httpx

from tests.support.running_server import RunningServer

PATIENCE_S = 120.0
NUM_TOKENS = 200
REQUEST: dict[str, Any] = {
    "model": "tiny",
    "prompt": "대한민국",
    "max_tokens": NUM_TOKENS,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "return_token_ids": True,
}

End = Literal["whole", "error", "broken"]
"""[DONE] and no error; an error event; the connection broke, as HTTP shows it."""


class Stream:
    """A completion of `checkpoint`, read in a thread of its own from the moment it is made."""

    def __init__(self, server: RunningServer, checkpoint: Path, **fields: object) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.status: int | None = None
        self.num_counted: int | None = None
        """Tokens, by the server's own count."""
        self.begun = threading.Event()
        """Set by the first token, or the end."""
        self.end: End | None = None
        self._checkpoint = checkpoint
        self._request = REQUEST | {"allowed_token_ids": words(checkpoint)} | fields
        self._thread = threading.Thread(target=self._read, args=(f"{server.url}/v1/completions",))
        self._thread.start()

    def wait(self) -> End | None:
        """How it ended."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "it hangs"
        return self.end

    def assert_whole(self) -> None:
        """No token is lost, none is there twice."""
        assert (self.status, self.wait()) == (200, "whole")
        assert len(self.ids) == self.num_counted == self._request["max_tokens"]
        assert self.text == tokenizer_of(self._checkpoint).decode(self.ids)

    def _read(self, url: str) -> None:
        try:
            with httpx.stream("POST", url, json=self._request, timeout=PATIENCE_S) as response:
                self.status = response.status_code
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        self._take(line.removeprefix("data: "))
        except httpx.TransportError:
            self.end = "broken"
        finally:
            self.begun.set()

    def _take(self, event: str) -> None:
        if event == "[DONE]":
            self.end = self.end or "whole"
            return
        document = json.loads(event)
        if "error" in document:
            self.end = "error"
            return
        if document.get("usage"):
            self.num_counted = document["usage"]["completion_tokens"]
        for choice in document["choices"]:
            self.ids += choice["token_ids"] or []
            self.text += choice["text"]
            self.begun.set()


@contextmanager
def bystander(server: RunningServer, checkpoint: Path, **fields: object) -> Iterator[None]:
    """A client that streams one answer after the other during the block; each of them must come whole."""
    streams = begun_streams(1, server, checkpoint, **fields)
    is_over = threading.Event()

    def go_on() -> None:
        while streams[-1].wait() == "whole" and not is_over.is_set():
            streams.append(Stream(server, checkpoint, **fields))

    going_on = threading.Thread(target=go_on)
    going_on.start()
    try:
        yield
    finally:
        is_over.set()
        going_on.join(PATIENCE_S)
    for stream in streams:
        stream.assert_whole()


def begun_streams(number: int, server: RunningServer, checkpoint: Path, **fields: object) -> list[Stream]:
    """As many, of which each has its first token."""
    streams = [Stream(server, checkpoint, **fields) for _ in range(number)]
    assert all(stream.begun.wait(PATIENCE_S) for stream in streams)
    return streams


@cache
def tokenizer_of(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


@cache
def words(checkpoint: Path) -> list[int]:
    """Tokens of whole characters: the text of several is that of each, joined."""
    tokenizer = tokenizer_of(checkpoint)
    found = [id for id in range(len(tokenizer)) if not tokenizer.convert_ids_to_tokens(id).startswith("<")]
    assert len(found) > 100
    return found
