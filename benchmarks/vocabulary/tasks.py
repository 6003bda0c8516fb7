"""What is measured, each in a process of its own: python -m benchmarks.vocabulary.task NAME '{...}'."""

import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.results import emptied
from train.corpus.counting import SUMMARY_FILE, TABLE_FILE, count_corpus
from train.corpus.shards import find_shards
from train.recipe import Growth
from train.vocabulary.base import Base, read_base
from train.vocabulary.choosing import Choice, choose_tokens
from train.vocabulary.growing import grow
from train.vocabulary.intermediate import read_tokens, train_intermediate
from train.vocabulary.pretokens import count_pretokens

Result = dict[str, Any]
SEED: Final = 0


def texts_of(corpus: str) -> Iterator[str]:
    """Every text, read as plainly as Python can."""
    for file in sorted(Path(corpus).glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"]


def counter(corpus: str) -> Result:
    """Counter(text.split()) over the files, one process."""
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    for text in texts_of(corpus):
        counts.update(text.split())
    return {"seconds": time.perf_counter() - start, "words": len(counts)}


def table(corpus: str, base: str, work: str, memory_bytes: int) -> Result:
    """Our word table from the files, and the base's pre-tokens from it."""
    emptied(Path(work))
    tokenizer = read_base(Path(base))
    warm_up(tokenizer)
    start = time.perf_counter()
    found = count_corpus(find_shards([corpus]), Path(work), memory_bytes=memory_bytes)
    counted = time.perf_counter()
    pretokens = count_pretokens(found.table, tokenizer)
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "count_seconds": counted - start,
        "cut_seconds": end - counted,
        "megabytes": found.num_bytes / 1e6,
        "words": found.num_words,
        "pretokens": len(pretokens.words.counts),
    }


def loop(base: str, work: str, growth: Result) -> Result:
    """The intermediate tokenizer, and every round of the loop."""
    tokenizer = read_base(Path(base))
    summary = json.loads((Path(work) / SUMMARY_FILE).read_text())
    warm_up(tokenizer)
    chosen = _choose(tokenizer, Growth(**growth), Path(work), summary["num_bytes"])
    (Path(work) / "tokens.json").write_text(json.dumps(chosen.choice.tokens, ensure_ascii=False))
    return {
        "seconds": chosen.loop_seconds,
        "train_seconds": chosen.train_seconds,
        "threshold": chosen.threshold,
        "rounds": [asdict(entry) for entry in chosen.choice.rounds],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The tokens, and what they took."""

    intermediate: list[str]
    threshold: int
    choice: Choice
    train_seconds: float
    loop_seconds: float


def _choose(tokenizer: Base, recipe: Growth, folder: Path, num_bytes: int) -> Chosen:
    """From the word table in `folder` to the tokens."""
    pretokens = count_pretokens(folder / TABLE_FILE, tokenizer)
    model = folder / "intermediate.model"
    start = time.perf_counter()
    train_intermediate(pretokens, tokenizer, recipe.intermediate_size, model)
    trained = time.perf_counter()
    intermediate, threshold = read_tokens(model), max(2, recipe.threshold(num_bytes))
    choice = choose_tokens(pretokens, tokenizer, intermediate, threshold=threshold, num_new=recipe.num_new)
    return Chosen(
        intermediate=intermediate,
        threshold=threshold,
        choice=choice,
        train_seconds=trained - start,
        loop_seconds=time.perf_counter() - trained,
    )


def _choose_on(texts: list[str], tokenizer: Base, recipe: Growth, folder: Path) -> Chosen:
    """The same on texts, counted first."""
    file = emptied(folder) / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts))
    found = count_corpus(find_shards([str(file)]), folder / "corpus", memory_bytes=10**9)
    return _choose(tokenizer, recipe, folder / "corpus", found.num_bytes)


def naive(corpus: str, base: str, work: str) -> Result:
    """One encoding of every text with the grown tokenizer; only encoding is timed, not reading."""
    tokenizer = read_base(Path(base))
    grown = grow(tokenizer, json.loads((Path(work) / "tokens.json").read_text())).tokenizer
    seconds, num_tokens, batch, size = 0.0, 0, [], 0
    for text in [*texts_of(corpus), None]:
        if text is not None:
            batch.append(text)
            size += len(text)
        if size > 4_000_000 or text is None:
            start = time.perf_counter()
            encoded = grown.encode_batch_fast(batch, add_special_tokens=False)
            seconds += time.perf_counter() - start
            num_tokens += sum(map(len, encoded))
            batch, size = [], 0
    return {"seconds": seconds, "tokens": num_tokens}


def same(corpus: str, base: str, work: str, growth: Result, sample_bytes: int) -> Result:
    """On a sample of the corpus: our tokens and counts, and those of the loop that encodes every text anew."""
    from tests.support.naive_vocabulary import naive_choice

    texts = list(texts_of(corpus))
    random.Random(SEED).shuffle(texts)
    sample, size = [], 0
    for text in texts:
        sample.append(text)
        size += len(text.encode())
        if size >= sample_bytes:
            break
    tokenizer, recipe = read_base(Path(base)), Growth(**growth)
    chosen = _choose_on(sample, tokenizer, recipe, Path(work))
    start = time.perf_counter()
    tokens, counts = naive_choice(
        sample, tokenizer, chosen.intermediate, threshold=chosen.threshold, num_new=recipe.num_new
    )
    return {
        "megabytes": size / 1e6,
        "seconds": chosen.loop_seconds,
        "naive_seconds": time.perf_counter() - start,
        "same_tokens": chosen.choice.tokens == tokens,
        "same_counts": chosen.choice.counts == counts,
        "tokens": len(tokens),
    }


def fertility(corpus: str, base: str, work: str, growth: Result, english: list[str]) -> Result:
    """Tokens chosen on every other text; tokens per character on the texts between."""
    texts = list(texts_of(corpus))
    tokenizer = read_base(Path(base))
    choice = _choose_on(texts[::2], tokenizer, Growth(**growth), Path(work)).choice
    grown = grow(tokenizer, choice.tokens)
    others = texts[1::2]
    num_characters = sum(map(len, others))
    before, after = (_num_tokens(which, others) / num_characters for which in (tokenizer, grown))
    lines = [line for path in english for text in texts_of(path) for line in text.splitlines() if line.strip()]
    kept = sum(
        one.ids == other.ids
        for one, other in zip(
            *(
                which.tokenizer.encode_batch_fast(lines, add_special_tokens=False)
                for which in (tokenizer, grown)
            ),
            strict=True,
        )
    )
    return {
        "before": before,
        "after": after,
        "lines": len(lines),
        "lines_kept": kept,
        "tokens": len(choice.tokens),
    }


def _num_tokens(tokenizer: Base, texts: list[str]) -> int:
    total = 0
    for start in range(0, len(texts), 20_000):
        total += sum(
            map(
                len,
                tokenizer.tokenizer.encode_batch_fast(texts[start : start + 20_000], add_special_tokens=False),
            )
        )
    return total


def warm_up(base: Base) -> None:
    """Has numba load its compiled functions, so that what is timed is work; compiling is told apart."""
    import numpy as np
    import pyarrow as pa

    from train.vocabulary.pretokens import Pretokens
    from train.vocabulary.segmentation import Words

    codes = base.codes(base.token("가나"))
    words = Words(np.array(codes, np.uint16), np.array([0, len(codes)]), np.array([1]))
    syllables = np.zeros(1 << 16, np.int64)
    texts = pa.array(["가나"], pa.large_string())
    choose_tokens(Pretokens(texts, words, syllables), base, [base.token("가나")], threshold=1, num_new=None)


TASKS: Final[dict[str, Callable[..., Result]]] = {
    task.__name__: task for task in (counter, table, loop, naive, same, fertility)
}
