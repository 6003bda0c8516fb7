"""Which documents are worth training on: Polyglot-Ko's rules, each with its name in the report.

Source: EleutherAI/dps, lang_agnostic_prep.py, korean_prep.py and the defaults of korean_job.yaml; the rules on
words, bullets and ellipses are those of Gopher, arXiv:2112.11446, table A1.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from malmoi.errors import RecipeError
from train.corpus.removals import Removals

HANGUL: Final = re.compile("[ㄱ-ㅎㅏ-ㅣ가-힣]")
SPACE: Final = re.compile(r"\s")
SYMBOLS: Final = re.compile(r"\.\.\.|[…#]")
BULLET: Final = re.compile(r"[*-]\s|[·•‧ㆍ]")
ELLIPSES: Final = ("…", "...")
FEWEST_LINES: Final = 3
"""A text of one or two is no list, whatever it begins with, and no row of teasers, whatever it ends in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What a document must be; the defaults are Polyglot-Ko's."""

    min_characters: int = 50
    max_characters: int = 100_000
    min_word_length: float = 3
    """Mean number of characters between white space."""
    max_word_length: float = 10
    max_symbol_share: float = 0.1
    """Of words, those with an ellipsis or #."""
    max_bullet_share: float = 0.9
    """Of lines, those that begin with a bullet."""
    max_ellipsis_share: float = 0.3
    """Of lines, those that end in an ellipsis."""
    min_hangul_share: float = 0.25
    """Of characters that are not white space; 0 for English."""
    bad_words: tuple[str, ...] = ()
    """Words that no document may hold."""


def flaws(text: str, quality: Quality) -> Iterator[str]:
    """The rules that `text` breaks, by name."""
    text = text.strip()
    yield from length_flaws(text, quality)
    words = text.split()
    if not words:
        return
    mean = sum(map(len, words)) / len(words)
    if mean < quality.min_word_length:
        yield "short words"
    if mean > quality.max_word_length:
        yield "long words"
    if sum(bool(SYMBOLS.search(word)) for word in words) / len(words) > quality.max_symbol_share:
        yield "ellipses and #"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    is_long = len(lines) >= FEWEST_LINES
    if is_long and sum(bool(BULLET.match(line)) for line in lines) / len(lines) > quality.max_bullet_share:
        yield "bullets"
    if is_long and sum(line.endswith(ELLIPSES) for line in lines) / len(lines) > quality.max_ellipsis_share:
        yield "lines without an end"
    if len(HANGUL.findall(text)) < quality.min_hangul_share * len(SPACE.sub("", text)):
        yield "little Hangul"
    if any(word in text for word in quality.bad_words):
        yield "bad words"


def length_flaws(text: str, quality: Quality) -> Iterator[str]:
    """As `flaws`, of the length alone."""
    if len(text) < quality.min_characters:
        yield "too short"
    if len(text) > quality.max_characters:
        yield "too long"


class QualityFilter(BaseFilter):  # type: ignore[misc]  # datatrove has no types
    """Drops documents that break a rule; the first one is the reason."""

    name = "malmoi quality"

    def __init__(
        self, quality: Quality, removals: Removals | None = None, *, is_length_only: bool = False
    ) -> None:
        super().__init__(exclusion_writer=removals)
        self.quality = quality
        self.is_length_only = is_length_only

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the document is kept; if not, with the rule it breaks."""
        find = length_flaws if self.is_length_only else flaws
        flaw = next(iter(find(doc.text, self.quality)), None)
        return True if flaw is None else (False, flaw)


def read_bad_words(file: Path) -> tuple[str, ...]:
    """The words of a file, one on each line.

    Raises: RecipeError for a file that cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            file, expected="a text file, a word on each line", found=str(error), next_step="check the path"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())
