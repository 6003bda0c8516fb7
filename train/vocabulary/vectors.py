"""Vectors of texts from outside the model, by which "similar" finds old tokens for a new one."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from malmoi.errors import RecipeError

Vectors = Callable[[Sequence[str]], torch.Tensor]
"""(texts, dim) for texts; a row of zeros for a text it knows nothing of."""
DIMENSIONS: Final = 100
EPOCHS: Final = 5
LONGEST_SUBWORD: Final = 3
"""Characters: Korean words are two or three syllables and a particle."""


def train_vectors(texts: Iterable[str], model: Path) -> None:
    """fastText skip-gram vectors of the texts' words and their parts, into `model`.

    Source: Bojanowski et al., arXiv:1607.04606. One thread, for with more the result depends on their timing.
    """
    import fasttext

    lines = model.with_suffix(".txt")
    with lines.open("w", encoding="utf-8") as file:
        file.writelines(" ".join(text.split()) + "\n" for text in texts)
    trained = fasttext.train_unsupervised(
        str(lines),
        model="skipgram",
        dim=DIMENSIONS,
        epoch=EPOCHS,
        minn=1,
        maxn=LONGEST_SUBWORD,
        bucket=200_000,
        thread=1,
        verbose=0,
    )
    partial = model.with_suffix(".partial")
    trained.save_model(str(partial))
    lines.unlink()
    partial.replace(model)


def read_vectors(path: Path) -> Vectors:
    """Vectors from a fastText .bin, a word2vec .vec or .txt, or a sentence-transformers directory.

    Raises: RecipeError if it is none of them.
    """
    if path.is_dir():
        return _sentence_vectors(path)
    if path.suffix == ".bin":
        import fasttext

        model = fasttext.load_model(str(path))
        return lambda texts: torch.from_numpy(np.stack([model.get_word_vector(text.strip()) for text in texts]))
    if path.suffix in (".vec", ".txt"):
        return _listed_vectors(path)
    raise RecipeError(
        path,
        expected="a fastText .bin, a word2vec .vec or .txt, or a sentence-transformers directory",
        found=f"a file {path.suffix or 'without suffix'}" if path.exists() else "nothing there",
        next_step="name one of these, or `corpus` to train vectors on the corpus itself",
    )


def _sentence_vectors(path: Path) -> Vectors:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(path), local_files_only=True)
    return lambda texts: torch.from_numpy(model.encode([text.strip() for text in texts], convert_to_numpy=True))


def _listed_vectors(path: Path) -> Vectors:
    """word2vec's text format: a word and its numbers on each line, after an optional line of two counts."""
    listed: dict[str, npt.NDArray[np.float32]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, *values = line.rstrip("\n").rsplit(" ")
            if number == 1 and len(values) == 1:
                continue
            try:
                vector = np.array(values, np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if not len(vector) or (listed and len(vector) != len(next(iter(listed.values())))):
                raise RecipeError(
                    f"{path}:{number}",
                    expected="a word and as many numbers as on the other lines",
                    found=line[:40],
                    next_step="mend or remove the line",
                )
            listed[word] = vector
    if not listed:
        raise RecipeError(path, expected="vectors", found="none", next_step="check the file")
    nothing = np.zeros_like(next(iter(listed.values())))
    return lambda texts: torch.from_numpy(np.stack([listed.get(text.strip(), nothing) for text in texts]))
