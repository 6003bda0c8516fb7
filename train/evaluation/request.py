"""What is to be found out about which model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from malmoi.errors import RecipeError
from train.evaluation.results import Language, Prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides the numbers, but the machine."""

    model: str
    """A directory, or a server's address."""
    name: str | None = None
    korean: Sequence[str] = ()
    english: Sequence[str] = ()
    text_field: str = "text"
    benchmarks: Sequence[str] = ()
    shots: Sequence[int] = (0,)
    data: Path | None = None
    """Directory of the benchmarks' files; None for the Hub."""
    prompts: Prompts = "harness"
    is_chat: bool = False
    questions: Sequence[str] = ()
    """Files of dialogues, of which the first turns are answered."""
    limit: int | None = None
    """Questions of a task, texts of a source, and dialogues, at most."""
    tokenizer: Path | None = None
    """Of a server."""
    key: str = "none"
    """For a server."""
    batch_size: int | None = None
    """Rows of a benchmark that are read at once; None for what memory allows."""
    seed: int = 1234
    """For the examples that are drawn."""

    def __post_init__(self) -> None:
        """Raises: RecipeError for what cannot be asked."""
        if not (self.korean or self.english or self.benchmarks or self.questions):
            raise RecipeError(
                "options",
                expected="something to find out",
                found="nothing",
                next_step="name texts (--korean, --english), --benchmarks or --prompts-file",
            )
        for option, value, least in (
            ("--limit", self.limit, 1),
            ("--batch-size", self.batch_size, 1),
            ("--shots", min(self.shots, default=None), 0),
        ):
            if value is not None and value < least:
                raise RecipeError(
                    option, expected=f"{least} or more", found=str(value), next_step="give another number"
                )
        if self.benchmarks and not self.shots:
            raise RecipeError(
                "--shots", expected="a number of examples", found="none", next_step="write --shots 0"
            )

    def texts(self, language: Language) -> Sequence[str]:
        """The files of a language's texts."""
        return self.korean if language == "korean" else self.english

    @property
    def is_served(self) -> bool:
        """Whether the model is behind an address."""
        return self.model.startswith(("http://", "https://"))
