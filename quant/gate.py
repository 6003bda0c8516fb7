"""The gate: how far an export may be from its parent and still be released."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from math import exp2
from typing import Final, Literal

from malmoi.elsewhere import find_elsewhere
from malmoi.errors import ReleaseError
from quant.fidelity import LANGUAGES, Answers, Fidelity, Score, TextFidelity

Part = Literal["korean", "english", "answers", "kobest", "speed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Thresholds; a share is between 0 and 1, a ratio is the export's number by the parent's."""

    source: str = (
        "perplexity: Llama-2-7B in GPTQ, 4 bits, groups of 128, on WikiText-2: 5.69 for 5.47 (AWQ, Table 4); "
        "KL: LLaMA 3 8B with weights rounded to 4 bits in groups of 32 (q4_0) in llama.cpp's "
        "tools/perplexity/README.md, where q4_K_M has 0.031 and the same token on top in 91.9 %"
    )
    assumed: tuple[str, ...] = (
        *("max_new_token_ratio", "max_kl_p99", "min_top1_agreement", "max_eos_rate_loss"),
        *("max_loop_rate_gain", "max_kobest_loss", "max_disk_ratio", "min_tokens", "fewest_new_tokens"),
        *("min_prompts", "required"),
    )
    """Fields that the source does not state."""
    max_perplexity_ratio: float = 1.04
    """In each language."""
    max_new_token_ratio: float = 1.06
    """Of the perplexity of the tokens that the vocabulary was grown by: rarer, so allowed more."""
    max_kl_mean: float = 0.072
    """Nats a predicted token, in each language."""
    max_kl_p99: float = 0.72
    """Nats: ten times the mean. LLaMA 3's own BF16 and FP16 are 9 times as far apart there as on average."""
    min_top1_agreement: float = 0.9
    """Share of predictions, in each language."""
    max_eos_rate_loss: float = 0.05
    """Share of answers that the parent ends itself and the export does not."""
    max_loop_rate_gain: float = 0.05
    """Share of answers."""
    max_kobest_loss: float = 0.03
    """Of the mean score over all tasks; that of one task moves so far by chance."""
    max_disk_ratio: float = 1.0
    min_tokens: int = 10_000
    """Predicted in each language: so many have 100 beyond the 99th percentile."""
    fewest_new_tokens: int = 1_000
    """Predicted in a language, for them to be judged by themselves: a handful in English tells nothing."""
    min_prompts: int = 32
    """Answered."""
    required: tuple[Part, ...] = ("korean", "english", "answers")
    """What must have been measured; answers only where the checkpoint has a chat template to ask in."""

    def __post_init__(self) -> None:
        unknown = set(self.assumed) - {field.name for field in fields(self)}
        if unknown:
            raise ValueError(f"assumed: {min(unknown)} is no field of a gate")


GATE: Final = Gate()
KOREAN: Final = replace(GATE, required=("korean", "answers"))
"""For a model that was taught no other language."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number and its threshold."""

    name: str
    value: float | None
    """None where it was to be measured and was not."""
    bound: Literal["at most", "at least"]
    limit: float

    @property
    def is_met(self) -> bool:
        """Whether it lets the export out; what is no number never does."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured"
        return f"{self.name}: {shown(self.value)}, to be {self.bound} {shown(self.limit)}"


def shown(value: float) -> str:
    """A number of a row: counts whole, others with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def judge(fidelity: Fidelity, gate: Gate, *, is_chat: bool) -> tuple[Row, ...]:
    """Every threshold with what was measured, those that are not met among them.

    `is_chat`: whether answers can be asked for at all.
    """
    rows: list[Row] = []
    for language in LANGUAGES:
        text = fidelity.text.get(language)
        rows += _of_text(language, text, gate) if text else _missing(language, gate)
    if fidelity.answers:
        rows += _of_answers(fidelity.answers, gate)
    elif is_chat:
        rows += _missing("answers", gate)
    rows += [_of_kobest(fidelity.kobest, gate)] if fidelity.kobest else _missing("kobest", gate)
    rows += _missing("speed", gate) if fidelity.speed is None else []
    disk = fidelity.size.export_disk_bytes / fidelity.size.parent_disk_bytes
    return (*rows, _at_most("bytes on disk, ratio", disk, gate.max_disk_ratio))


def _of_text(language: str, text: TextFidelity, gate: Gate) -> Iterator[Row]:
    yield Row(f"{language} tokens predicted", text.num_tokens, "at least", gate.min_tokens)
    ratio = text.export.perplexity / text.parent.perplexity
    yield _at_most(f"{language} perplexity, ratio", ratio, gate.max_perplexity_ratio)
    new = text.by_token.get("new")
    if new is not None and new.num_tokens >= gate.fewest_new_tokens:
        ratio = exp2(new.export_bits_per_token - new.parent_bits_per_token)
        yield _at_most(f"{language} perplexity of new tokens, ratio", ratio, gate.max_new_token_ratio)
    yield _at_most(f"{language} KL mean, nats", text.kl_mean, gate.max_kl_mean)
    yield _at_most(f"{language} KL 99th percentile, nats", text.kl_p99, gate.max_kl_p99)
    yield Row(f"{language} top-1 agreement, share", text.top1_agreement, "at least", gate.min_top1_agreement)


def _of_answers(answers: Answers, gate: Gate) -> Iterator[Row]:
    yield Row("prompts answered", answers.num_prompts, "at least", gate.min_prompts)
    lost = answers.parent.eos_rate - answers.export.eos_rate
    yield _at_most("answers that end in eos, share lost", lost, gate.max_eos_rate_loss)
    gained = answers.export.loop_rate - answers.parent.loop_rate
    yield _at_most("answers that end in a loop, share gained", gained, gate.max_loop_rate_gain)


def _of_kobest(scores: Mapping[str, Score], gate: Gate) -> Row:
    lost = sum(score.parent - score.export for score in scores.values()) / len(scores)
    return _at_most("KoBEST mean score, lost", lost, gate.max_kobest_loss)


def _missing(part: Part, gate: Gate) -> list[Row]:
    return [Row(part, None, "at least", 0.0)] if part in gate.required else []


def _at_most(name: str, value: float, limit: float) -> Row:
    return Row(name, value, "at most", limit)


def find_gate(name: str) -> Gate:
    """`my.module:GATE`, a gate from elsewhere.

    Raises: ReleaseError if there is none.
    """
    found = find_elsewhere(name, Gate)
    if isinstance(found, Gate):
        return found
    raise ReleaseError(
        f"--gate {name}",
        expected="a quant.gate.Gate, as my.module:GATE",
        found=found,
        next_step="name another, or leave it out for the default",
    )
