"""Each threshold refuses what it is for, and nothing else."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from malmoi.errors import ReleaseError
from quant.fidelity import Fidelity, TextFidelity
from quant.gate import GATE, Gate, Row, find_gate, judge
from tests.support.releases import good_fidelity

OWN = replace(GATE, max_kl_mean=0.5)
NAN = float("nan")
Change = Callable[[Fidelity], Fidelity]


def failed(fidelity: Fidelity, gate: Gate = GATE, *, is_chat: bool = True) -> list[str]:
    return [row.name for row in judge(fidelity, gate, is_chat=is_chat) if not row.is_met]


def in_korean(change: Callable[[TextFidelity], TextFidelity]) -> Change:
    def apply(fidelity: Fidelity) -> Fidelity:
        text = fidelity.text["korean"]
        assert text is not None
        return replace(fidelity, text={**fidelity.text, "korean": change(text)})

    return apply


def in_new_tokens(text: TextFidelity) -> TextFidelity:
    new = text.by_token["new"]
    assert new is not None
    worse = replace(new, export_bits_per_token=new.parent_bits_per_token + 0.085)  # 2 ** 0.085 is 1.0607
    return replace(text, by_token={**text.by_token, "new": worse})


def in_answers(**rates: float) -> Change:
    def apply(fidelity: Fidelity) -> Fidelity:
        answers = fidelity.answers
        assert answers is not None
        return replace(fidelity, answers=replace(answers, export=replace(answers.export, **rates)))

    return apply


def in_few_prompts(fidelity: Fidelity) -> Fidelity:
    assert fidelity.answers is not None
    return replace(fidelity, answers=replace(fidelity.answers, num_prompts=31))


def in_kobest(fidelity: Fidelity) -> Fidelity:
    assert fidelity.kobest is not None
    lost = {name: replace(score, export=score.parent - 0.031) for name, score in fidelity.kobest.items()}
    return replace(fidelity, kobest=lost)


DAMAGE: dict[str, tuple[str, Change]] = {
    "max_perplexity_ratio": (
        "korean perplexity, ratio",
        in_korean(lambda text: replace(text, export=replace(text.export, perplexity=16.65))),
    ),
    "max_new_token_ratio": ("korean perplexity of new tokens, ratio", in_korean(in_new_tokens)),
    "max_kl_mean": ("korean KL mean, nats", in_korean(lambda text: replace(text, kl_mean=0.073))),
    "max_kl_p99": ("korean KL 99th percentile, nats", in_korean(lambda text: replace(text, kl_p99=0.73))),
    "min_top1_agreement": (
        "korean top-1 agreement, share",
        in_korean(lambda text: replace(text, top1_agreement=0.89)),
    ),
    "max_eos_rate_loss": ("answers that end in eos, share lost", in_answers(eos_rate=0.93)),
    "max_loop_rate_gain": ("answers that end in a loop, share gained", in_answers(loop_rate=0.07)),
    "max_kobest_loss": ("KoBEST mean score, lost", in_kobest),
    "min_tokens": ("korean tokens predicted", in_korean(lambda text: replace(text, num_tokens=9_999))),
    "min_prompts": ("prompts answered", in_few_prompts),
    "max_disk_ratio": (
        "bytes on disk, ratio",
        lambda found: replace(found, size=replace(found.size, export_disk_bytes=(4 << 20) + 1)),
    ),
}


def test_what_is_close_to_its_parent_passes() -> None:
    rows = judge(good_fidelity(), GATE, is_chat=True)
    assert [row for row in rows if not row.is_met] == []
    assert len(rows) == 6 + 5 + 3 + 1 + 1, "Korean, English without new tokens, answers, KoBEST, size"


@pytest.mark.parametrize("threshold", DAMAGE)
def test_each_threshold_refuses_its_own_damage_and_is_settable(threshold: str) -> None:
    name, change = DAMAGE[threshold]
    damaged = change(good_fidelity())
    assert failed(damaged) == [name]
    looser: Any = {threshold: 0.0 if threshold.startswith("min") else 9.0}
    assert failed(damaged, replace(GATE, **looser)) == []


def test_a_handful_of_new_tokens_is_not_judged() -> None:
    def few(text: TextFidelity) -> TextFidelity:
        new = in_new_tokens(text).by_token["new"]
        assert new is not None
        return replace(text, by_token={**text.by_token, "new": replace(new, num_tokens=999)})

    assert failed(in_korean(few)(good_fidelity())) == []
    name = "korean perplexity of new tokens, ratio"
    assert failed(in_korean(few)(good_fidelity()), replace(GATE, fewest_new_tokens=999)) == [name]


def test_every_threshold_is_tested() -> None:
    thresholds = {field.name for field in fields(Gate) if field.name.startswith(("max_", "min_"))}
    assert thresholds == DAMAGE.keys()


def test_what_is_no_number_is_not_met() -> None:
    change = in_korean(lambda text: replace(text, kl_mean=NAN, top1_agreement=NAN))
    assert failed(change(good_fidelity())) == ["korean KL mean, nats", "korean top-1 agreement, share"]


def test_what_must_be_measured_and_was_not_is_named() -> None:
    nothing = replace(
        good_fidelity(), text={"korean": None, "english": None}, answers=None, kobest=None, speed=None
    )
    assert failed(nothing) == ["korean", "english", "answers"]
    assert failed(nothing, is_chat=False) == ["korean", "english"], "a base model is asked nothing"
    assert failed(nothing, replace(GATE, required=("speed", "kobest"))) == ["kobest", "speed"]
    assert str(Row("korean", None, "at least", 0.0)) == "korean: not measured"


def test_a_row_says_what_was_found_and_what_was_allowed() -> None:
    row = next(
        row for row in judge(DAMAGE["max_kl_mean"][1](good_fidelity()), GATE, is_chat=True) if not row.is_met
    )
    assert str(row) == "korean KL mean, nats: 0.073, to be at most 0.072"


def test_counts_are_told_whole() -> None:
    few = replace(GATE, min_tokens=50_000)
    told = [str(row) for row in judge(good_fidelity(), few, is_chat=True) if not row.is_met]
    assert told[0] == "korean tokens predicted: 30,000, to be at least 50,000"


def test_a_gate_from_elsewhere() -> None:
    assert find_gate(f"{__name__}:OWN") is OWN


@pytest.mark.parametrize("name", ["", "nowhere:GATE", f"{__name__}:NAN", f"{__name__}:GONE", "..odd:GATE"])
def test_what_is_no_gate(name: str) -> None:
    with pytest.raises(ReleaseError, match=r"--gate .*my\.module:GATE"):
        find_gate(name)


def test_what_is_assumed_is_a_field() -> None:
    with pytest.raises(ValueError, match="max_typo is no field"):
        replace(GATE, assumed=("max_typo",))
