"""What an export and its parent are asked: held-out texts, prompts and questions, drawn by the seed."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from malmoi import kobest
from malmoi.checkpoint import Checkpoint
from malmoi.errors import CorpusError, RecipeError
from malmoi.provenance import text_digest
from quant.answers import Prompt, prompts_of
from quant.fidelity import LANGUAGES, Language
from quant.passages import Passage, rendered, sample
from quant.texts import Text, read_texts

NUM_PROMPTS: Final = 128
NUM_OPENINGS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be compared, and on what: everything that decides the numbers but the machine."""

    export: Path
    parent: Path
    korean: Sequence[str]
    english: Sequence[str]
    prompts: Sequence[str]
    kobest: Path | None
    serve: bool
    num_tokens: int
    """Predicted in each language, at most."""
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What both models are asked."""

    passages: Mapping[Language, Sequence[Passage]]
    prompts: Sequence[Prompt]
    questions: Mapping[str, Sequence[Mapping[str, Any]]]
    """Of KoBEST, by task."""
    openings: Sequence[str]
    """Korean texts to be gone on with, for measuring speed."""
    digests: Mapping[str, str]
    """SHA-256 of all texts that were drawn from, by name."""


def draw(request: Request, parent: Checkpoint, tokenizer: PreTrainedTokenizerBase) -> Material:
    """Reads and draws everything, so that what is wrong with the data shows before any model is loaded.

    Raises: CorpusError for data that cannot be read or is empty; RecipeError for what cannot be asked.
    """
    _check(request, parent)
    sources = {"korean": request.korean, "english": request.english, "prompts": request.prompts}
    texts = {name: _shuffled(name, files, request.seed) for name, files in sources.items() if files}
    questions = kobest.questions(request.kobest) if request.kobest else {}
    passages = {
        language: sample(texts[language], tokenizer, num_tokens=request.num_tokens)
        for language in LANGUAGES
        if language in texts
    }
    prompts = prompts_of(texts.get("prompts", ()))[:NUM_PROMPTS]
    _refuse_empty(passages, "texts of two tokens or more, one of them to be predicted")
    _refuse_empty({"prompts": prompts} if request.prompts else {}, "questions: dialogues that a user begins")
    _refuse_empty({f"kobest: {task}": rows for task, rows in questions.items()}, "questions")
    for prompt in prompts:
        rendered(prompt, tokenizer, add_generation_prompt=True)
    digests = {name: text_digest("\0".join(sorted(map(_plain, found)))) for name, found in texts.items()}
    digests |= {f"kobest_{task}": text_digest(json.dumps(rows)) for task, rows in questions.items()}
    return Material(
        passages=passages,
        prompts=prompts,
        questions=questions,
        openings=[_plain(text) for text in texts["korean"][:NUM_OPENINGS]],
        digests=digests,
    )


def _check(request: Request, parent: Checkpoint) -> None:
    if not request.korean:
        raise RecipeError(
            "--korean", expected="held-out Korean texts", found="none", next_step="name some: --korean FILE..."
        )
    if request.num_tokens < 1:
        raise RecipeError(
            "--num-tokens", expected="at least 1", found=str(request.num_tokens), next_step="leave it out"
        )
    if request.prompts and parent.template is None:
        raise RecipeError(
            "--prompts",
            expected="a chat checkpoint",
            found=f"{parent.path}, which has no chat template",
            next_step="leave --prompts out",
        )


def _refuse_empty(found: Mapping[Any, Sequence[object]], expected: str) -> None:
    """Raises CorpusError for the first option whose files hold nothing of use."""
    empty = next((name for name, content in found.items() if not content), None)
    if empty is not None:
        raise CorpusError(f"--{empty}", expected=expected, found="none", next_step="name other files")


def _shuffled(name: str, files: Sequence[str], seed: int) -> list[Text]:
    texts = list(read_texts(files))
    if not texts:
        raise CorpusError(
            f"--{name}", expected="texts", found=f"none in {', '.join(files)}", next_step="name other files"
        )
    random.Random(seed).shuffle(texts)
    return texts


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(f"{turn.role}: {turn.content}" for turn in text)
