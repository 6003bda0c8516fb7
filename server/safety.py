"""An optional check of prompts and answers by somebody else's classifier; off unless it is asked for.

Fails closed: what could not be checked is refused (503), or ends there. Prompts that are flagged are refused
(400, code content_filter). Answers that are flagged end with finish_reason content_filter, as OpenAI's do:
what of them had passed stands, the rest is dropped. Of a stream at most `safety_window` characters of each
choice are held back; then they are checked, together with what came before them.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import tyro

from server.checks import TEXT_PARTS
from server.refusal import Invalid, Unavailable

logger = logging.getLogger(__name__)

KEY_VARIABLE = "MALMOI_SAFETY_KEY"
"""Environment variable with the key for the endpoint, if it takes one."""
CHECKED_CHARACTERS = 4000
"""Of a text that goes on at most so much is checked at once, its end: what was before has been checked."""
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PART_TYPES = (*TEXT_PARTS, "function")
OVERLAP = 400
"""Characters of one piece of a long prompt that are checked with the next, too."""
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """How prompts and answers are checked."""

    safety: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: none)")] = None
    """URL of an OpenAI-style moderation endpoint, or directory of a transformers text classifier."""
    safety_labels: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LABEL...", help_behavior_hint="")] = ()
    """of a classifier: the labels that are not to pass."""
    safety_threshold: float = 0.5
    """of a classifier: from which probability on a label counts."""
    safety_window: int = 80
    """characters of a streamed answer that are held back, at most, until they are checked."""
    safety_timeout_s: Annotated[float, tyro.conf.arg(name="safety-timeout")] = 5.0
    """seconds a check may take; then the request is refused, or its answer ends (503)."""


class CheckFailed(Exception):  # noqa: N818
    """A classifier that has no answer."""


class Filtered(Invalid):
    """A prompt that the safety check has flagged."""

    outcome = "filtered"


class Classifier(Protocol):
    """Says what of a text is not to pass."""

    async def flags(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """For each text the categories that it is flagged for; raises CheckFailed."""

    async def close(self) -> None:
        """Ends it."""


class Check:
    """What the gate asks. `decode` turns a prompt's token ids into text."""

    def __init__(self, classifier: Classifier, settings: Safety, decode: Callable[[list[int]], str]) -> None:
        self.window = settings.safety_window
        self._classifier = classifier
        self._timeout_s = settings.safety_timeout_s
        self._decode = decode

    async def prompt(self, document: dict[str, Any]) -> None:
        """Raises Filtered for a prompt that is flagged; Unavailable if that cannot be found out."""
        texts = [text for text in self._prompts(document) if text.strip()]
        for flagged in await self.texts(texts) if texts else ():
            if flagged:
                raise Filtered(
                    f"The prompt was flagged by this server's safety check ({', '.join(flagged)}).",
                    code="content_filter",
                    param="messages" if "messages" in document else "prompt",
                )

    async def texts(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """For each text what it is flagged for; raises Unavailable if that cannot be found out."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._classifier.flags([text[-CHECKED_CHARACTERS:] for text in texts])
        except (CheckFailed, TimeoutError) as error:
            logger.warning("the safety check failed: %s", error or f"no answer in {self._timeout_s:g} s")
            raise Unavailable(
                "The safety check could not be made; try again.", retry_after_s=RETRY_AFTER_S
            ) from error

    def _prompts(self, document: dict[str, Any]) -> Iterable[str]:
        """The texts of a prompt, in pieces that are checked whole; of what is no prompt vLLM will tell."""
        yield from pieces("\n".join(message_texts(document.get("messages"))))
        if document.get("tools"):
            yield from pieces(json.dumps(document["tools"], ensure_ascii=False))
        prompt = document.get("prompt")
        for part in prompt if isinstance(prompt, list) and not is_token_ids(prompt) else (prompt,):
            if isinstance(part, list):
                yield from pieces(self._decode([token for token in part if isinstance(token, int)]))
            elif isinstance(part, str):
                yield from pieces(part)


def pieces(text: str) -> Iterable[str]:
    """A text in pieces of CHECKED_CHARACTERS that overlap."""
    for start in range(0, len(text), CHECKED_CHARACTERS - OVERLAP):
        yield text[start : start + CHECKED_CHARACTERS]


def message_texts(messages: object) -> Iterable[str]:
    """Every text in every message: a template may render any of its fields and of its parts' fields."""
    for message in messages if isinstance(messages, list) else ():
        for name, value in message.items() if isinstance(message, dict) else ():
            if not (name == "role" and value in ROLES):
                yield from _texts(value)


def _texts(value: object) -> Iterable[str]:
    """The strings in a part of a message, without those that say what kind of part it is."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not (name == "type" and item in PART_TYPES):
                yield from _texts(item)


def is_token_ids(prompt: object) -> bool:
    """Whether a prompt is one list of token ids, not a list of prompts."""
    return isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], int)


def build_classifier(settings: Safety) -> Classifier | None:
    """The classifier that is asked for, None for none.

    Raises: ServeError for a classifier that cannot be had.
    """
    if settings.safety is None:
        return None
    from server.classifiers import LocalClassifier, ModerationEndpoint

    if settings.safety.startswith(("http://", "https://")):
        return ModerationEndpoint(settings.safety, os.environ.get(KEY_VARIABLE))
    return LocalClassifier(Path(settings.safety), settings.safety_labels, settings.safety_threshold)
