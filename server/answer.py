"""Counts the characters of an OpenAI answer as it passes, streamed or whole, without keeping its text."""

from msgspec import DecodeError, Struct, json

EVENT_END = b"\n\n"
EVENT_DATA = b"data: {"


class FunctionCall(Struct):
    """The text a model writes to call a tool."""

    arguments: str | None = None


class ToolCall(Struct):
    """One tool call of a message or delta."""

    function: FunctionCall | None = None


class Text(Struct):
    """A message, or a streamed part of one."""

    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct):
    """One answer: `delta` in a chat stream, `message` in a whole chat answer, `text` in a completion."""

    index: int = 0
    delta: Text | None = None
    message: Text | None = None
    text: str | None = None


class Answer(Struct):
    """The part of vLLM's chat and completion bodies, and of their stream events, that carries text."""

    choices: list[Choice] = []
    error: object = None


class AnswerReader:
    """Reads a body part by part; `num_characters` counts code points of all choices.

    A reader that is never told `is_stream` takes the body for one JSON document. `text_times` holds, for each
    event of a stream that carries text, the index of its choice and when its part was written.
    """

    __slots__ = ("_decoder", "_rest", "has_error", "is_stream", "num_characters", "text_times")

    _shared_decoder = json.Decoder(Answer)

    def __init__(self) -> None:
        self._decoder = self._shared_decoder
        self._rest = b""
        self.is_stream = False
        self.has_error = False
        self.num_characters = 0
        self.text_times: list[tuple[int, float]] = []

    def feed(self, body: bytes, written_at: float) -> None:
        """Takes a part of the body; `written_at` in seconds."""
        if not self.is_stream:
            self._rest += body
            return
        data = self._rest + body if self._rest else body
        *events, self._rest = data.split(EVENT_END)
        for event in events:
            if event.startswith(EVENT_DATA):
                for choice in self._choices(event[len(EVENT_DATA) - 1 :]):
                    count = _characters(choice)
                    if count:
                        self.num_characters += count
                        self.text_times.append((choice.index, written_at))

    def close(self) -> None:
        """Counts a whole JSON document, once all of it has been fed."""
        if not self.is_stream and self._rest:
            self.num_characters += sum(map(_characters, self._choices(self._rest)))
        self._rest = b""

    def _choices(self, document: bytes) -> list[Choice]:
        try:
            answer = self._decoder.decode(document)
        except DecodeError:  # not an answer of these routes: /tokenize, /metrics, an error page
            return []
        self.has_error = self.has_error or answer.error is not None
        return answer.choices


def _characters(choice: Choice) -> int:
    count = len(choice.text or "")
    for part in (choice.delta, choice.message):
        if part is not None:
            count += len(part.content or "") + len(part.reasoning or "")
            for call in part.tool_calls or ():
                count += len(call.function.arguments or "") if call.function else 0
    return count
