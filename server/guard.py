"""Stands between vLLM's app and a client where answers are checked: holds them back until they have passed."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.answer import EVENT_END
from server.exchange import ERROR_EVENT, Exchange, Message
from server.refusal import Unavailable
from server.safety import CHECKED_CHARACTERS, Check

DATA = b"data: "
DONE = b"data: [DONE]\n\n"
REASON = "content_filter"


@dataclass(slots=True)
class Spoken:
    """One choice of a stream, as far as it has come."""

    passed: str = ""
    """The end of what has been checked."""
    held: str = ""
    """What has not."""
    is_cut: bool = False


@dataclass(slots=True)
class Guard:
    """`send` is the app's; what `check` lets through goes on to `exchange`, which drops all once it failed."""

    exchange: Exchange
    check: Check
    _start: Message | None = None
    _is_stream: bool = False
    _rest: bytes = b""
    """Of a whole answer, what has come of it; of a stream, of its next event."""
    _held: list[tuple[bytes, dict[str, Any] | None]] = field(default_factory=list)
    _choices: dict[int, Spoken] = field(default_factory=dict)
    _has_passed: bool = False
    """Something was checked; until then even what has no text waits, so that a failure can be a status."""

    async def send(self, message: Message) -> None:
        """The app's."""
        if message["type"] == "http.response.start":
            self._start = message
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._is_stream = any(kind.startswith(b"text/event-stream") for kind in kinds)
            if self._is_stream:
                await self.exchange.send(message)
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._is_stream:
            await self._take_events(body, is_last)
        else:
            self._rest += body
            if is_last:
                await self._send_whole()

    async def _send_whole(self) -> None:
        assert self._start is not None
        start, raw = self._start, self._rest
        if start["status"] == 200:
            document = msgspec.json.decode(raw)
            choices = document.get("choices", ())
            flags = await self._check([text_of(choice) for choice in choices])
            for choice, flagged in zip(choices, flags, strict=True):
                if flagged:
                    _empty(choice, flagged)
            if any(flags):
                raw = msgspec.json.encode(document)
                kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                start["headers"] = [*kept, (b"content-length", str(len(raw)).encode())]
        await self.exchange.send(start)
        await self.exchange.send({"type": "http.response.body", "body": raw})
        if raw is not self._rest:
            self.exchange.stop("filtered")

    async def _take_events(self, body: bytes, is_last: bool) -> None:
        *events, self._rest = (self._rest + body).split(EVENT_END)
        for event in events:
            self._hold(event + EVENT_END)
        held = [len(choice.held) for choice in self._choices.values()]
        if is_last or max(held, default=0) >= self.check.window or (self._has_passed and not any(held)):
            await self._release(is_last)

    def _hold(self, event: bytes) -> None:
        if event.startswith(ERROR_EVENT) and not self._has_passed:  # alone and first: it can be the status
            self._held.clear()
            self._choices.clear()
        document = None
        if event.startswith(DATA + b"{"):
            document = msgspec.json.decode(event[len(DATA) :])
            for choice in document.get("choices", ()):
                spoken = self._choices.setdefault(choice.get("index", 0), Spoken())
                spoken.held += "" if spoken.is_cut else text_of(choice)
        self._held.append((event, document))

    async def _release(self, is_last: bool) -> None:
        """Checks what is held, and passes it on, without what was flagged."""
        unchecked = {index: spoken for index, spoken in self._choices.items() if spoken.held}
        newly_cut: dict[int, tuple[str, ...]] = {}
        if unchecked:
            flags = await self._check([spoken.passed + spoken.held for spoken in unchecked.values()])
            self._has_passed = True
            for (index, spoken), flagged in zip(unchecked.items(), flags, strict=True):
                spoken.passed, spoken.held = (spoken.passed + spoken.held)[-CHECKED_CHARACTERS:], ""
                if flagged:
                    newly_cut[index] = flagged
                    spoken.is_cut = True
        parts = [self._passed(event, document, newly_cut) for event, document in self._held]
        self._held.clear()
        all_cut = all(spoken.is_cut for spoken in self._choices.values()) and bool(self._choices)
        body = b"".join(parts) + (DONE if all_cut and not is_last else b"")
        if body or is_last:
            more = not (is_last or all_cut)
            await self.exchange.send({"type": "http.response.body", "body": body, "more_body": more})
        if all_cut or (is_last and any(spoken.is_cut for spoken in self._choices.values())):
            self.exchange.stop("filtered")

    async def _check(self, texts: list[str]) -> list[tuple[str, ...]]:
        """What the texts are flagged for; where that cannot be found out, the exchange has failed."""
        try:
            return await self.check.texts(texts) if texts else []
        except Unavailable as refusal:
            self.exchange.fail(refusal)
            return [()] * len(texts)

    def _passed(
        self, event: bytes, document: dict[str, Any] | None, newly_cut: dict[int, tuple[str, ...]]
    ) -> bytes:
        """An event without the choices that are cut; where one is newly cut, with the end of it."""
        if document is None or not document.get("choices"):
            return event
        kept = []
        for choice in document["choices"]:
            index = choice.get("index", 0)
            if not self._choices[index].is_cut:
                kept.append(choice)
            elif index in newly_cut:
                _empty(choice, newly_cut.pop(index))
                kept.append(choice)
        if not kept:
            return b""
        return DATA + msgspec.json.encode(document | {"choices": kept}) + EVENT_END


def text_of(choice: dict[str, Any]) -> str:
    """Everything that a model has written in a choice, whole or a piece of it."""
    said = choice.get("delta") or choice.get("message") or {}
    calls = [call.get("function") or {} for call in said.get("tool_calls") or ()]
    texts = [choice.get("text"), said.get("reasoning"), said.get("content")]
    return "".join(text or "" for text in [*texts, *(call.get("arguments") for call in calls)])


def _empty(choice: dict[str, Any], flagged: tuple[str, ...]) -> None:
    """Ends a choice, without its text, as OpenAI's content filter does."""
    refusal = f"This answer was cut off by the server's safety check ({', '.join(flagged)})."
    choice["finish_reason"] = REASON
    choice["logprobs"] = None
    choice.pop("token_ids", None)
    if "message" in choice:
        choice["message"] = {"role": "assistant", "content": None, "refusal": refusal}
    elif "delta" in choice:
        choice["delta"] = {"refusal": refusal}
    else:
        choice["text"] = ""
