"""What `malmoi-train evaluate` found: the numbers, and the directory that holds them.

What was not measured is None, never 0. Beside results.json stand the items, one a line: of a task every
question with its label and the model's choice (TASK-SHOTS.jsonl), of a language every document
(language-korean.jsonl).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from malmoi.errors import RecipeError
from malmoi.speed import Speed

RESULTS_FILE: Final = "results.json"
ITEMS_FOLDER: Final = "items"
FORMAT: Final = 1

Language = Literal["korean", "english"]
Prompts = Literal["harness", "polyglot"]
LANGUAGES: Final[tuple[Language, ...]] = ("korean", "english")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a model reads some texts. Counts are of what is predicted: all but a first token that is given."""

    bits_per_byte: float
    bits_per_character: float
    tokens_per_character: float
    tokens_per_word: float
    """A word being what stands between white space."""
    byte_share: float
    """Of the tokens, those that are only part of a character."""
    num_bytes: int
    num_characters: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageReading:
    """All texts of a language, and those of each source by themselves."""

    whole: Reading
    domains: Mapping[str, Reading]

    def to_record(self) -> dict[str, Any]:
        """The numbers of the whole, and `domains` beside them."""
        return asdict(self.whole) | {"domains": {name: asdict(found) for name, found in self.domains.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "LanguageReading":
        """The reading that a record holds."""
        whole = {name: value for name, value in record.items() if name != "domains"}
        domains = {name: Reading(**found) for name, found in record["domains"].items()}
        return cls(whole=Reading(**whole), domains=domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a benchmark."""

    value: float
    stderr: float | None
    """Its standard error; None where it cannot be told, as of a single question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One task of a benchmark with so many examples, or a group of tasks together."""

    metrics: Mapping[str, Metric]
    num_rows: int
    """Questions that were asked."""
    prompt_digest: str
    """SHA-256 of all prompts and answers to choose from, before any chat template: the same for every model."""
    prompts: Prompts
    is_chat: bool
    """Whether the prompts went through the model's chat template."""
    split: str | None
    """Of the data, which part was asked; None of a group."""
    version: str
    """The harness's own, of the task."""
    items: str | None
    """The file of its items, from the results' directory; None of a group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """How a model's greedy answers behave."""

    num_prompts: int
    prompt_digest: str
    """SHA-256 of the prompts: the same for every model."""
    eos_rate: float
    """Share of the answers that the model ended itself."""
    loop_rate: float
    """Share of those that end in a repetition; see malmoi.repetition."""
    korean_share: float | None
    """Of the answers to Korean questions, those that are Korean; None where no question is."""
    mean_characters: float
    mean_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that was found out about a model."""

    name: str
    model: str
    """The last part of its path, or its address."""
    digest: str | None
    """`checkpoint_digest` of a directory; None of a server."""
    created: str
    """When, in ISO 8601."""
    seed: int
    versions: Mapping[str, str]
    language: Mapping[Language, LanguageReading | None]
    benchmarks: Mapping[str, Mapping[int, Score]]
    """By task or group, and by the number of examples."""
    chat: Chat | None
    speed: Speed | None
    """Of a server only."""
    notes: tuple[str, ...]
    """What a reader of the numbers should know; a sentence each."""

    def to_record(self) -> dict[str, Any]:
        """What results.json holds."""
        return {
            "format": FORMAT,
            "name": self.name,
            "model": self.model,
            "digest": self.digest,
            "created": self.created,
            "seed": self.seed,
            "versions": dict(self.versions),
            "language": {language: found and found.to_record() for language, found in self.language.items()},
            "benchmarks": {
                task: {str(shots): asdict(score) for shots, score in by_shots.items()}
                for task, by_shots in self.benchmarks.items()
            },
            "chat": self.chat and asdict(self.chat),
            "speed": self.speed and asdict(self.speed),
            "notes": list(self.notes),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Results":
        """The results that a record holds. Raises: KeyError, TypeError or ValueError where it holds none."""
        fields = dict(record)
        if fields.pop("format") != FORMAT:
            raise ValueError(f"format {record['format']}, not {FORMAT}")
        return cls(
            **fields
            | {
                "language": {
                    language: found and LanguageReading.from_record(found)
                    for language, found in record["language"].items()
                },
                "benchmarks": {
                    task: {int(shots): score_of(score) for shots, score in by_shots.items()}
                    for task, by_shots in record["benchmarks"].items()
                },
                "chat": record["chat"] and Chat(**record["chat"]),
                "speed": record["speed"] and Speed(**record["speed"]),
                "notes": tuple(record["notes"]),
            }
        )


def score_of(record: Mapping[str, Any]) -> Score:
    """The score that a record holds."""
    metrics = {name: Metric(**found) for name, found in record["metrics"].items()}
    return Score(**dict(record) | {"metrics": metrics})


def read(folder: Path) -> Results:
    """The results in a directory. Raises: RecipeError if there are none that this version can read."""
    try:
        return Results.from_record(json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(
            folder,
            expected="what `malmoi-train evaluate` wrote",
            found=f"{type(error).__name__}: {error}",
            next_step="run `malmoi-train evaluate` again: it goes on where it was",
        ) from None


def write_items(folder: Path, name: str, items: Iterable[Mapping[str, Any]]) -> None:
    """Writes `name`, a line for each item, below a directory of results."""
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    file.write_text("".join(lines), encoding="utf-8")


def write(folder: Path, results: Results) -> None:
    """Writes results.json."""
    text = json.dumps(results.to_record(), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
