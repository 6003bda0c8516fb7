"""How far an export is from its parent: the numbers, and fidelity.json, which holds them.

What was not measured is None, never 0. KL is of the parent's next-token distribution to the export's, in nats
for each predicted token.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from malmoi.errors import CheckpointError
from malmoi.speed import Speed

FIDELITY_FILE: Final = "fidelity.json"
PAGE_FILE: Final = "fidelity.md"
FORMAT: Final = 2

Language = Literal["korean", "english"]
TokenKind = Literal["old", "new", "byte"]
LANGUAGES: Final[tuple[Language, ...]] = ("korean", "english")
TOKEN_KINDS: Final[tuple[TokenKind, ...]] = ("old", "new", "byte")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How well one model predicts a text."""

    bits_per_byte: float
    """Of its UTF-8."""
    perplexity: float
    """Of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGroup:
    """The predicted tokens of one kind."""

    num_tokens: int
    kl_mean: float
    kl_p99: float
    top1_agreement: float
    """Share of the predictions whose likeliest token is the parent's."""
    parent_bits_per_token: float
    export_bits_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFidelity:
    """Both models on the same texts of a language."""

    num_tokens: int
    """Predicted ones."""
    num_bytes: int
    """Of their text, in UTF-8."""
    parent: Prediction
    export: Prediction
    kl_mean: float
    kl_p99: float
    top1_agreement: float
    by_token: Mapping[TokenKind, TokenGroup | None]
    """None of a kind that the texts have no token of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRates:
    """What became of one model's greedy answers, as shares of them."""

    eos_rate: float
    """Those that the model ended itself."""
    loop_rate: float
    """Those that end in a repetition; see malmoi.repetition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Greedy answers of both models to the same held-out prompts."""

    num_prompts: int
    parent: AnswerRates
    export: AnswerRates


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Both models on one task of a benchmark."""

    metric: str
    parent: float
    export: float
    num: int
    """Questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes on disk, and of memory once loaded and one token predicted, in a process of its own."""

    parent_disk_bytes: int
    export_disk_bytes: int
    parent_memory_bytes: int
    export_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Both models under the same load."""

    parent: Speed
    export: Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """All that `malmoi-quant check` found."""

    parent: str
    """`checkpoint_digest` of the checkpoint that was quantized."""
    export: str
    """`checkpoint_digest` of what it became."""
    method: str
    """quant_method of its config.json."""
    settings: Mapping[str, Any]
    """quantization_config of its config.json."""
    text: Mapping[Language, TextFidelity | None]
    answers: Answers | None
    kobest: Mapping[str, Score] | None
    size: Size
    speed: Speeds | None
    data: Mapping[str, str]
    """SHA-256 of what was measured on, by name."""
    seed: int
    machine: str
    """What sizes in memory and speeds were measured on."""
    libraries: Mapping[str, str]
    command: str

    def to_record(self) -> dict[str, Any]:
        """What fidelity.json holds."""
        return {"format": FORMAT} | asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Fidelity":
        """The fidelity that a record holds. Raises: KeyError, TypeError or ValueError where it holds none."""
        fields = dict(record)
        if fields.pop("format") != FORMAT:
            raise ValueError(f"format {record['format']}, not {FORMAT}")
        answers, kobest, speed = record["answers"], record["kobest"], record["speed"]
        return cls(
            **fields
            | {
                "text": {language: _text(found) for language, found in record["text"].items()},
                "answers": answers and Answers(**dict(answers) | _both(AnswerRates, answers)),
                "kobest": kobest and {task: Score(**found) for task, found in kobest.items()},
                "size": Size(**record["size"]),
                "speed": speed and Speeds(**_both(Speed, speed)),
            }
        )


def read(file: Path) -> Fidelity:
    """The fidelity in `file`. Raises: CheckpointError if there is none that this version can read."""
    try:
        return Fidelity.from_record(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            file,
            expected="what `malmoi-quant check` wrote",
            found=f"{type(error).__name__}: {error}",
            next_step="run `malmoi-quant check` again",
        ) from None


def _text(record: Mapping[str, Any] | None) -> TextFidelity | None:
    if record is None:
        return None
    groups = {kind: group and TokenGroup(**group) for kind, group in record["by_token"].items()}
    return TextFidelity(**dict(record) | _both(Prediction, record) | {"by_token": groups})


def _both(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kind(**record[name]) for name in ("parent", "export")}
