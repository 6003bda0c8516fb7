"""Whole characters only: what leaves the engine's detokenizer, made fit to be shown as it comes.

vLLM's detokenizer keeps back the bytes of an unfinished character. What is left to do:

- A syllable of several byte tokens is a step without text for all but the last of them. `WholeTextQueue` passes
  such a step on with the next that has text, so that no empty piece is sent, and none is paid for.
- Bytes that no character begins or ends with become U+FFFD in between. They are dropped, streamed or not.
- A syllable spelt in conjoining jamo (U+1100 and on) is kept back until its vowel is there.
- A prompt that ends inside a character is repeated in the first piece (vLLM issue 48853), and stop strings are
  searched in it. `primed_stream` makes the detokenizer's stream begin where the prompt's whole characters end.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from server.life import Life

REPLACEMENT = "\ufffd"
FIRST_CONSONANTS = "".join(map(chr, range(0x1100, 0x1160)))
"""The jamo that a syllable begins with; none of them ends one."""
LONGEST_CHARACTER = 4
"""Bytes of UTF-8, so at most as many tokens."""


class Queue(Protocol):
    """What takes the outputs of one request: vLLM's RequestOutputCollector."""

    request_id: str

    def put(self, output: Any) -> None:
        """Takes a RequestOutput, or the exception that ends the request."""


class WholeTextQueue:
    """Stands in front of a request's queue; of its `life`, if it has one, tokens and times are told.

    is_delta: outputs hold what is new; else each holds all.
    no_text: what to end with where the engine fails before the first token, and the request is to blame.
    """

    __slots__ = ("_held", "_is_delta", "_is_first", "_kept", "_life", "_no_text", "_queue")

    def __init__(
        self, queue: Queue, life: Life | None, *, is_delta: bool, no_text: Exception | None = None
    ) -> None:
        self._queue = queue
        self._no_text = no_text
        self._life = life
        self._is_delta = is_delta
        self._held: Any = None
        self._kept = ""
        """Jamo at the end of the text so far, whose vowel has not come."""
        self._is_first = True

    @property
    def request_id(self) -> str:
        """Of the queue behind."""
        return self._queue.request_id

    def put(self, output: Any) -> None:
        """Passes `output` on, at once or with the next that has text."""
        if isinstance(output, Exception) or not output.outputs:
            self._queue.put(output)
            return
        if self._life is not None:
            self._tell(output)
        if self._no_text is not None:
            if output.outputs[0].finish_reason == "error":
                self._queue.put(self._no_text)
                return
            self._no_text = None
        has_text = output.finished
        for completion in output.outputs:
            has_finished = completion.finish_reason is not None
            completion.text = self._whole(completion.text, has_finished)
            has_text = has_text or has_finished or bool(completion.text)
        if self._held is not None:
            self._held.add(output, aggregate=True)
            output, self._held = self._held, None
        if has_text or not self._is_delta:
            self._queue.put(output)
        else:
            self._held = output

    def _whole(self, text: str, has_finished: bool) -> str:
        """`text` without what is no character, and, until the end, without jamo that are no syllable yet."""
        if REPLACEMENT in text:
            text = text.replace(REPLACEMENT, "")
        if self._kept:
            text, self._kept = self._kept + text, ""
        if text and text[-1] in FIRST_CONSONANTS:
            whole = text.rstrip(FIRST_CONSONANTS)
            self._kept = "" if has_finished else text[len(whole) :]
            return whole
        return text

    def _tell(self, output: Any) -> None:
        life = self._life
        assert life is not None
        for completion in output.outputs:
            life.completion_tokens += len(completion.token_ids)
        if self._is_first and output.metrics is not None:
            self._is_first = False
            stats = output.metrics
            life.engine_queue_s = max(0.0, stats.scheduled_ts - stats.queued_ts)


def primed_stream(
    tokenizer: Tokenizer, prompt: Sequence[int], *, skip_special_tokens: bool
) -> DecodeStream | None:
    """A stream for an answer to `prompt` that begins with the character the prompt ends inside of.

    None if it ends with a whole one, and the detokenizer's own stream will do.
    """

    def last_character(end: int) -> Sequence[int]:
        """The tokens before `end` that end with a whole character; none if it is inside of one."""
        for begin in range(end - 1, max(-1, end - 1 - LONGEST_CHARACTER), -1):
            if not tokenizer.decode(list(prompt[begin:end])).endswith(REPLACEMENT):
                return prompt[begin:end]
        return ()

    if not prompt or last_character(len(prompt)):
        return None
    begun = range(len(prompt) - 1, max(-1, len(prompt) - LONGEST_CHARACTER), -1)
    end = next((end for end in begun if end == 0 or last_character(end)), len(prompt))
    stream = DecodeStream(ids=list(last_character(end)), skip_special_tokens=skip_special_tokens)
    for token_id in prompt[end:]:
        stream.step(tokenizer, token_id)
    return stream
