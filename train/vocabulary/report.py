"""What a person looks at after growing a vocabulary: report.md, its plots, and the same numbers in JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Final

from malmoi import measure
from train.vocabulary.base import Base
from train.vocabulary.growth import Grown

NUM_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fertility:
    """What a tokenizer spends on some texts."""

    tokens_per_character: float
    tokens_per_word: float
    byte_share: float
    """Of its tokens, those that are a byte or another part of a character."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """Texts of one source, before and after."""

    name: str
    num_characters: int
    before: Fertility
    after: Fertility

    @property
    def saving(self) -> float:
        """By how much tokens per character have fallen, as a share."""
        return 1 - self.after.tokens_per_character / self.before.tokens_per_character


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A model's loss on Korean before any training, with rows of one initialiser."""

    input_rows: str
    output_rows: str
    bits_per_byte: float


def fertility(tokenizer: Base, texts: Sequence[str]) -> Fertility:
    """Tokens spent on `texts`; special tokens are not counted."""
    encoded = tokenizer.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    partial = {number for token, number in tokenizer.vocabulary.items() if tokenizer.is_partial(token)}
    num_tokens = sum(len(found.ids) for found in encoded)
    num_partial = sum(number in partial for found in encoded for number in found.ids)
    whole = "\n".join(texts)
    return Fertility(
        tokens_per_character=num_tokens / sum(map(len, texts)),
        tokens_per_word=measure.tokens_per_word(num_tokens, whole),
        byte_share=num_partial / num_tokens,
    )


def compare(before: Base, after: Base, samples: Mapping[str, Sequence[str]]) -> list[Domain]:
    """Each source's fertility before and after, and that of all together first."""
    everything = [text for texts in samples.values() for text in texts]
    return [
        Domain(
            name=name,
            num_characters=sum(map(len, texts)),
            before=fertility(before, texts),
            after=fertility(after, texts),
        )
        for name, texts in {"all": everything, **samples}.items()
        if texts
    ]


def report_files(
    grown: Grown, domains: Sequence[Domain], losses: Sequence[Loss], where: str
) -> dict[str, str | bytes]:
    """The report's files, by name. `where`: what the texts of `domains` are."""
    choice = grown.choice
    record = {
        "recipe": grown.request.recipe.name,
        "assumed": list(grown.request.recipe.assumed),
        "threshold": grown.threshold,
        "corpus": {name: value for name, value in asdict(grown.corpus).items() if name != "table"},
        "tokens": {"base": grown.base.num_ids, "new": len(choice.tokens), "all": grown.tokenizer.num_ids},
        "rounds": [asdict(entry) for entry in choice.rounds],
        "guarantees": [asdict(guarantee) for guarantee in grown.guarantees],
        "texts": where,
        "domains": [asdict(domain) | {"saving": domain.saving} for domain in domains],
        "losses": [asdict(loss) for loss in losses],
    }
    return {
        "report.json": json.dumps(record, ensure_ascii=False, indent=2) + "\n",
        "report.md": _markdown(grown, domains, losses, where),
        "tokens.tsv": review_table(grown),
        "report_counts.png": _counts_plot(grown),
        "report_fertility.png": _fertility_plot(domains),
    }


def review_table(grown: Grown) -> str:
    """Every new token with its count and example words, a line each, to be read and edited by a person.

    Lines that are removed become a --drop file, lines that are added a --keep file: both take the first column.
    """
    rows = zip(grown.choice.tokens, grown.choice.counts, grown.choice.examples, strict=True)
    lines = [
        "\t".join([grown.base.text(token) or token, str(count), " | ".join(map(str.strip, words)), token])
        for token, count, words in rows
    ]
    return "\n".join(["text\tcount\texamples\ttoken", *lines]) + "\n"


def _markdown(grown: Grown, domains: Sequence[Domain], losses: Sequence[Loss], where: str) -> str:
    choice, recipe, corpus = grown.choice, grown.request.recipe, grown.corpus
    parts = [
        f"# {len(choice.tokens):,} tokens more",
        f"{grown.base.num_ids:,} tokens of the base, {grown.tokenizer.num_ids:,} in all. Recipe {recipe.name} "
        f"({recipe.source}); its source does not state: {', '.join(recipe.assumed) or 'nothing'}.",
        f"Chosen on {corpus.num_texts:,} texts, {corpus.num_bytes / 1e6:,.1f} MB, {choice.num_words:,} "
        f"distinct pre-tokens; tokens that occur fewer than {grown.threshold} times were dropped.",
        _bad_lines(grown),
        "## Tokens spent, before and after",
        f"On {where}.",
        _domains_table(domains),
        "![tokens per character](report_fertility.png)",
        "## Rounds",
        "| round | tokens | dropped | added | words encoded |\n| --- | --- | --- | --- | --- |\n"
        + "\n".join(
            f"| {number} | {of.num_tokens:,} | {of.num_dropped:,} | {of.num_added:,} | {of.num_encoded:,} |"
            for number, of in enumerate(choice.rounds, 1)
        ),
        "The last one cuts to the size asked for.",
        "## How often the new tokens occur",
        "![counts](report_counts.png)",
        _extremes(grown),
        "## Guarantees",
        "| | cases checked | |\n| --- | --- | --- |\n"
        + "\n".join(f"| {entry.name} | {entry.num_checked:,} | holds |" for entry in grown.guarantees),
    ]
    if losses:
        parts += [
            "## Loss before any training",
            f"Bits per UTF-8 byte, on {where}; lower is better.",
            "| input rows | output rows | bits per byte |\n| --- | --- | --- |\n"
            + "\n".join(
                f"| {loss.input_rows} | {loss.output_rows} | {loss.bits_per_byte:.4f} |" for loss in losses
            ),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bad_lines(grown: Grown) -> str:
    corpus = grown.corpus
    if not corpus.bad_lines:
        return ""
    kinds = ", ".join(f"{kind}: {count:,}" for kind, count in corpus.bad_lines.items())
    return f"Lines left out: {kinds}. The first:\n\n" + "\n".join(
        f"- {line}" for line in corpus.examples[:NUM_SHOWN]
    )


def _domains_table(domains: Sequence[Domain]) -> str:
    head = (
        "| | characters | tokens/character | | fewer | tokens/word | | bytes' share | |\n" + "| --- " * 9 + "|"
    )
    rows = [
        f"| {domain.name} | {domain.num_characters:,} | {domain.before.tokens_per_character:.3f} | "
        f"{domain.after.tokens_per_character:.3f} | {domain.saving:.1%} | "
        f"{domain.before.tokens_per_word:.2f} | {domain.after.tokens_per_word:.2f} | "
        f"{domain.before.byte_share:.2%} | {domain.after.byte_share:.2%} |"
        for domain in domains
    ]
    return "\n".join([head, *rows])


def _extremes(grown: Grown) -> str:
    choice = grown.choice
    order = sorted(range(len(choice.tokens)), key=lambda place: -choice.counts[place])
    shown = [
        " ".join(
            f"`{grown.base.text(choice.tokens[place]) or choice.tokens[place]}` {choice.counts[place]:,}"
            for place in part
        )
        for part in (order[:NUM_SHOWN], order[-NUM_SHOWN:])
    ]
    steps = sum(not words for words in choice.examples)
    return f"Most frequent: {shown[0]}\n\nLeast: {shown[1]}\n\n{steps:,} are only steps on the way to others."


def _counts_plot(grown: Grown) -> bytes:
    counts = sorted(grown.choice.counts, reverse=True)
    return _plot(
        lambda axes: axes.plot(range(1, len(counts) + 1), [max(count, 0.5) for count in counts]),
        x="new token, by frequency",
        y="occurrences in the corpus",
        logarithmic=True,
    )


def _fertility_plot(domains: Sequence[Domain]) -> bytes:
    names = [domain.name for domain in domains]

    def draw(axes):  # type: ignore[no-untyped-def]
        places = range(len(names))
        axes.bar(
            [place - 0.2 for place in places],
            [d.before.tokens_per_character for d in domains],
            0.4,
            label="before",
        )
        axes.bar(
            [place + 0.2 for place in places],
            [d.after.tokens_per_character for d in domains],
            0.4,
            label="after",
        )
        axes.set_xticks(list(places), names, rotation=90, fontsize=7)
        axes.legend()

    return _plot(draw, x="", y="tokens per character", logarithmic=False)


def _plot(draw, *, x: str, y: str, logarithmic: bool) -> bytes:  # type: ignore[no-untyped-def]
    """A PNG; the same numbers give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()
