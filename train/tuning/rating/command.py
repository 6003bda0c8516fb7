"""`malmoi-train rate`, behind its options."""

import asyncio
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from malmoi.errors import CorpusError, MalmoiError, RecipeError
from malmoi.files import create_directory, refuse_existing
from train.tuning.dialogues import Dialogue
from train.tuning.rating.asking import Asking, Pace
from train.tuning.rating.budget import Budget, Estimate, counter_of, estimate
from train.tuning.rating.endpoint import OpenAIEndpoint
from train.tuning.rating.filtering import (
    NO_ANSWER,
    THRESHOLD,
    Filtered,
    check_threshold,
    filter_rated,
    rated,
    write_filtered,
)
from train.tuning.rating.journal import History, Journal, open_journal, read_history
from train.tuning.rating.prompts import Language, Prompt, rating_prompt
from train.tuning.reading import OnBadRow, Rows, read_dialogues


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What is to be rated, by whom, and at what cost."""

    dialogues: tuple[str, ...]
    endpoint: str
    model: str
    key: str = field(repr=False)
    language: Language = "ko"
    max_requests: int | None = None
    max_tokens: int | None = None
    pace: Pace = field(default_factory=Pace)
    timeout_s: float = 60.0
    """From sending a request to having all of its answer."""
    threshold: float = THRESHOLD
    tokenizer: Path | None = None
    on_bad_row: OnBadRow = "refuse"

    def __post_init__(self) -> None:
        """Raises: RecipeError."""
        check_threshold(self.threshold)
        if not _is_address(self.endpoint):
            raise RecipeError(
                "--endpoint",
                expected="an address like http://127.0.0.1:8000/v1",
                found=repr(self.place),
                next_step="write it in full",
            )
        for option, value in (("--max-requests", self.max_requests), ("--max-tokens", self.max_tokens)):
            if value is not None and value < 0:
                raise RecipeError(
                    option, expected="0 or more", found=str(value), next_step="leave it out for none"
                )
        if not 0 < self.timeout_s < math.inf:
            raise RecipeError(
                "--timeout", expected="seconds, more than 0", found=str(self.timeout_s), next_step="60 is usual"
            )
        if not self.model.strip() or not self.model.isprintable():
            raise RecipeError(
                "--model",
                expected="the name of a model",
                found=repr(self.model),
                next_step="ask the endpoint for its models: GET /v1/models",
            )

    @property
    def place(self) -> str:
        """The endpoint's address without a name and password in it."""
        return self.endpoint.rpartition("@")[2]

    def budget(self) -> Budget:
        """Nothing spent."""
        return Budget(max_requests=self.max_requests, max_tokens=self.max_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The conversations, and their prompts by key: fewer, where some are the same."""

    rows: Rows[Dialogue]
    keys: list[str]
    """Of each conversation, that of its prompt."""
    prompts: dict[str, Prompt]

    def unanswered(self, history: History) -> dict[str, Prompt]:
        """What is still to be asked."""
        return {key: prompt for key, prompt in self.prompts.items() if key not in history.answers}


def _is_address(url: str) -> bool:
    """Whether the client, which is made of httpx, can send anything there."""
    try:
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return False
    has_port = address.port is None or 0 < address.port < 2**16
    return address.scheme in ("http", "https") and bool(address.host) and has_port


def run(rating: Rating, out: Path, work: Path, *, overwrite: bool = False) -> Filtered:
    """Rates the conversations and writes those kept, dropped and unread into `out`.

    Raises: RecipeError when the budget is spent or the endpoint lets nothing in; OutputError for an `out` that
    exists, before anything is read; CorpusError for a row that holds no conversation.
    """
    refuse_existing(out, overwrite, inputs=rating.dialogues)
    sample = read_sample(rating)
    with open_journal(work, rating.budget()) as journal:
        history = journal.history
        print(estimate_of(rating, sample, history), file=sys.stderr)
        given_up = asyncio.run(_ask(rating, sample, journal))
    conversations = [
        rated(dialogue, history.answers.get(key), given_up.get(key))
        for dialogue, key in zip(sample.rows.examples, sample.keys, strict=True)
    ]
    filtered = filter_rated(conversations, rating.threshold)
    with create_directory(out, overwrite=overwrite) as partial:
        write_filtered(filtered, partial, _facts(rating, sample, history.budget), rating.language)
    return filtered


def read_sample(rating: Rating) -> Sample:
    """Reads what is to be rated. Raises: CorpusError for a row that holds no conversation, or without any."""
    rows = read_dialogues(rating.dialogues, rating.on_bad_row)
    if not rows.examples:
        where, num_bad = " ".join(rating.dialogues), len(rows.bad)
        raise CorpusError(
            where, expected="conversations", found=f"none, {num_bad:,} bad rows", next_step="name other files"
        )
    prompts = [rating_prompt(dialogue.messages, rating.language) for dialogue in rows.examples]
    keys = [prompt.key(rating.model) for prompt in prompts]
    return Sample(rows=rows, keys=keys, prompts=dict(zip(keys, prompts, strict=True)))


def tell_estimate(rating: Rating, work: Path) -> str:
    """What a run would cost; nothing is sent or written."""
    return estimate_of(rating, read_sample(rating), read_history(work, rating.budget()))


def estimate_of(rating: Rating, sample: Sample, history: History) -> str:
    """What is still to be sent, in words."""
    left = sample.unanswered(history)
    cost = estimate(left.values(), counter_of(rating.tokenizer))
    how = "" if rating.tokenizer else "about "
    lines = [
        f"{len(sample.keys):,} conversations, {len(sample.prompts):,} prompts, of which "
        f"{len(sample.prompts) - len(left):,} are answered",
        f"to send: {cost.num_requests:,} requests, {how}{cost.num_prompt_tokens:,} tokens of prompts, at most "
        f"{cost.num_answer_tokens:,} of answers; every retry is one request more",
        f"spent so far: {history.budget.num_requests:,} requests, {history.budget.num_tokens:,} tokens",
    ]
    return "\n".join([*lines, *_shortages(history.budget, cost)])


def _shortages(budget: Budget, cost: Estimate) -> list[str]:
    """A line for each budget that will not do."""
    needed = (
        ("--max-requests", budget.max_requests, budget.num_requests + cost.num_requests),
        ("--max-tokens", budget.max_tokens, budget.num_tokens + cost.num_tokens),
    )
    return [
        f"{option} {most:,} may stop it before the end: {total:,} may be needed in all"
        for option, most, total in needed
        if most is not None and total > most
    ]


async def _ask(rating: Rating, sample: Sample, journal: Journal) -> dict[str, str]:
    """Asks what is not answered yet; by key, why some got no answer."""
    left = sample.unanswered(journal.history)
    if not left:
        return {}
    endpoint = OpenAIEndpoint(rating.endpoint, rating.model, rating.key, timeout_s=rating.timeout_s)
    num_done = len(sample.prompts) - len(left)
    try:
        with tqdm(
            total=len(sample.prompts), initial=num_done, desc="rating", unit="prompt", disable=None
        ) as bar:
            asking = Asking(endpoint, journal, rating.pace, bar.update)
            await asking.ask_all(left)
    finally:
        await endpoint.close()
    if asking.stopped is not None:
        raise _with_progress(asking.stopped, sample, journal.history)
    if asking.given_up and not journal.history.answers:
        raise RecipeError(
            "the endpoint",
            expected="answers",
            found=f"none; the last: {list(asking.given_up.values())[-1]}",
            next_step="see that it runs; the same command goes on",
        )
    return asking.given_up


def _with_progress(error: MalmoiError, sample: Sample, history: History) -> MalmoiError:
    """The error that stopped a run, with what is done and what is left."""
    num_left = len(sample.unanswered(history))
    done = f"{len(sample.prompts) - num_left:,} of {len(sample.prompts):,} prompts answered, {num_left:,} left"
    return type(error)(
        error.where, expected=error.expected, found=f"{error.found} ({done})", next_step=error.next_step
    )


def _facts(rating: Rating, sample: Sample, budget: Budget) -> Mapping[str, Any]:
    return {
        "prompts": len(sample.prompts),
        "bad_rows": len(sample.rows.bad),
        "model": rating.model,
        "endpoint": rating.place,
        "language": rating.language,
        "requests": budget.num_requests,
        "tokens": budget.num_tokens,
    }


def summary(filtered: Filtered) -> str:
    """What a run came to, on a line."""
    unread: Sequence[str | None] = [one.problem for one in filtered.unread]
    text = (
        f"{len(filtered.kept):,} kept at {filtered.threshold:g} and more, {len(filtered.dropped):,} dropped, "
        f"{len(unread):,} unread"
    )
    num_unanswered = unread.count(NO_ANSWER)
    again = (
        f" ({num_unanswered:,} without an answer: --overwrite asks for them again)" if num_unanswered else ""
    )
    return text + again
