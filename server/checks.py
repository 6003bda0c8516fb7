"""What a request may ask for: read from its body before anything of vLLM sees it.

vLLM checks types and meaning, and answers with 400s of its own; here are the bounds that it does not have, what
its advisories have been about, and what it would ignore in silence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.bounds import Bounds
from server.refusal import Invalid

INT64 = range(-(1 << 63), 1 << 63)
BYTES_PER_TOKEN = 4
"""About, of Korean and English text; for what a key's quota sets aside until the tokens are counted."""
COMPLETIONS_MAX_TOKENS = 16
"""vLLM's and OpenAI's default on /v1/completions."""
REFUSED_FIELDS = {
    "chat_template": "the model's own template is used",
    "chat_template_kwargs": "the model's own template is used as it is",
    "documents": "the model's own template is used as it is",
    "media_io_kwargs": "this server takes text only",
    "mm_processor_kwargs": "this server takes text only",
    "prompt_embeds": "prompts are text or token ids",
    "kv_transfer_params": "caches are not moved between servers",
    "ec_transfer_params": "caches are not moved between servers",
    "vllm_xargs": "the engine has no extensions",
    "use_beam_search": "answers are sampled; set n for more than one",
    "priority": "turns are given fairly between keys",
}
"""Fields that reach code of vLLM which has had advisories, or that go past this server's limits."""
TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})
"""Parts of a message that vLLM reads as text; it would fetch others."""
MAX_ITEMS = {
    "stop": 4,
    "stop_token_ids": 64,
    "bad_words": 128,
    "logit_bias": 1024,
    "allowed_token_ids": 4096,
    "logprob_token_ids": 128,
    "messages": 4096,
    "tools": 128,
}
TOKEN_IDS = ("stop_token_ids", "allowed_token_ids", "logprob_token_ids", "logit_bias")
WORD_LISTS = ("stop", "bad_words")
MAX_WORD_CHARACTERS = 256
SCHEMA_FIELDS = ("response_format", "structured_outputs", "tools")
SHOWN_UNKNOWN = 8
"""At most so many unknown fields are named in a header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the gate has to know of a request."""

    document: dict[str, Any]
    model: str | None
    num_sequences: int
    num_tokens: int
    """The most that prompt and answers may come to; the prompt is estimated."""
    unknown_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The bounds, and what they are measured against."""

    bounds: Bounds
    max_model_len: int
    """In tokens."""
    vocab_size: int
    max_sequences: int
    """That may ever run at once."""
    known_fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By path, what vLLM reads."""

    def check(self, path: str, body: bytes) -> Checked:
        """What `body` asks of the route at `path`.

        Raises: Invalid, which says the bound.
        """
        document = parse(body, self.bounds.max_depth)
        unknown = tuple(sorted(document.keys() - self.known_fields.get(path, document.keys())))
        if unknown and self.bounds.strict:
            raise Invalid(f"Unknown fields: {', '.join(shown(unknown))} (--strict).", param=unknown[0])
        refuse_fields(document)
        check_parts(document.get("messages"))
        self._check_sizes(document)
        self._check_numbers(document)
        num_sequences = self._num_sequences(document)
        model = document.get("model")
        return Checked(
            document=document,
            model=model if isinstance(model, str) else None,
            num_sequences=num_sequences,
            num_tokens=len(body) // BYTES_PER_TOKEN + num_sequences * self._max_tokens(document),
            unknown_fields=unknown,
        )

    @property
    def max_tokens(self) -> int:
        """Tokens that one answer may have."""
        return min(self.bounds.max_tokens or self.max_model_len, self.max_model_len)

    def _check_sizes(self, document: dict[str, Any]) -> None:
        for name, most in MAX_ITEMS.items():
            value = document.get(name)
            if isinstance(value, list | dict) and len(value) > most:
                raise Invalid(f"{name} may have {most} items, not {len(value)}.", param=name)
        for name in WORD_LISTS:
            for word in as_list(document.get(name)):
                if isinstance(word, str) and len(word) > MAX_WORD_CHARACTERS:
                    raise Invalid(f"Each item of {name} may have {MAX_WORD_CHARACTERS} characters.", param=name)
        for name in TOKEN_IDS:
            for token_id in as_list(document.get(name)):
                self._check_token_id(name, token_id)
        for name in SCHEMA_FIELDS:
            if (value := document.get(name)) is not None:
                size = len(msgspec.json.encode(value))
                if size > self.bounds.max_schema_bytes:
                    most = self.bounds.max_schema_bytes
                    raise Invalid(f"{name} may have {most} bytes, not {size}.", param=name)

    def _check_token_id(self, name: str, value: object) -> None:
        try:
            token_id = int(value)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise Invalid(f"{name} takes token ids.", param=name) from None
        if not 0 <= token_id < self.vocab_size:
            raise Invalid(f"{name} takes token ids from 0 to {self.vocab_size - 1}.", param=name)

    def _check_numbers(self, document: dict[str, Any]) -> None:
        for name, value in document.items():
            if type(value) is int and value not in INT64:
                raise Invalid(f"{name} must fit into 64 bits.", param=name)
        most = {
            "n": (1, self.bounds.max_n),
            "max_tokens": (0, self.max_tokens),
            "max_completion_tokens": (0, self.max_tokens),
            "min_tokens": (0, self.max_tokens),
            "top_logprobs": (0, self.bounds.max_logprobs),
            "prompt_logprobs": (0, self.bounds.max_logprobs),
            "logprobs": (0, self.bounds.max_logprobs),
        }
        for name, (least, greatest) in most.items():
            number = as_integer(name, document.get(name))
            if number is not None and not least <= number <= greatest:
                raise Invalid(f"{name} must be from {least} to {greatest}, not {number}.", param=name)

    def _num_sequences(self, document: dict[str, Any]) -> int:
        prompt = document.get("prompt")
        is_batch = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
        number = (as_integer("n", document.get("n")) or 1) * (len(prompt) if is_batch else 1)  # type: ignore[arg-type]
        if number > self.max_sequences:
            raise Invalid(
                f"n times the number of prompts must be at most {self.max_sequences}, not {number}.",
                param="prompt" if is_batch else "n",
            )
        return number

    def _max_tokens(self, document: dict[str, Any]) -> int:
        for name in ("max_completion_tokens", "max_tokens"):
            if (asked := as_integer(name, document.get(name))) is not None:
                return asked
        return self.max_tokens if "messages" in document else min(COMPLETIONS_MAX_TOKENS, self.max_tokens)


def parse(body: bytes, max_depth: int) -> dict[str, Any]:
    """The object that a body is.

    Raises: Invalid if it is none, or nested deeper than `max_depth`.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not JSON in UTF-8: {error}") from error
    except RecursionError:
        raise Invalid(f"Objects and lists may be nested {max_depth} deep.") from None
    if not isinstance(document, dict):
        raise Invalid("The body must be a JSON object.")
    if body.count(b"{") + body.count(b"[") > max_depth and is_deeper(document, max_depth):
        raise Invalid(f"Objects and lists may be nested {max_depth} deep.")
    return document


def with_salt(body: bytes, cache_salt: str) -> bytes:
    """The body of an object that is not empty, with a salt for its prefixes; its own, if any, comes later."""
    begin = body.index(b"{") + 1
    return body[:begin] + b'"cache_salt":"%b",' % cache_salt.encode() + body[begin:]


def is_deeper(value: object, max_depth: int) -> bool:
    """Whether objects and lists are nested deeper than that."""
    level: list[object] = [value]
    for _ in range(max_depth):
        inner = (list(item.values()) if isinstance(item, dict) else item for item in level)
        level = [item for items in inner for item in items if isinstance(item, dict | list)]  # type: ignore[attr-defined]
        if not level:
            return False
    return True


def refuse_fields(document: dict[str, Any]) -> None:
    """Raises Invalid for a field that is not taken, set to something."""
    for name, reason in REFUSED_FIELDS.items():
        if document.get(name):
            raise Invalid(f"{name} is not taken: {reason}.", param=name)


def check_parts(messages: object) -> None:
    """Raises Invalid for a message with a part that is not text."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else "text"
            if not isinstance(kind, str) or kind not in TEXT_PARTS:
                raise Invalid(
                    "Messages are text: of parts, only those of type text are taken.", param="messages"
                )


def as_list(value: object) -> Iterable[object]:
    """The items of a list, the keys of an object, or the one value that stands for a list of one."""
    if value is None:
        return ()
    return value if isinstance(value, list | dict) else (value,)


def as_integer(name: str, value: object) -> int | None:
    """A number as vLLM would read it; None for none, and for booleans.

    Raises: Invalid for what only looks like a number.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, int):
        raise Invalid(f"{name} must be an integer.", param=name)
    return value


def shown(fields: Iterable[str]) -> list[str]:
    """Names of fields as they can stand in a header or a line: ASCII, short, and not too many."""
    names = [name.encode("ascii", "backslashreplace").decode()[:64] for name in list(fields)[:SHOWN_UNKNOWN]]
    return ["".join(character if character.isprintable() else "?" for character in name) for name in names]
