"""Who checks texts: a moderation endpoint somewhere, or a text classifier here."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from malmoi.errors import ServeError
from server.safety import CheckFailed

MULTI_LABEL = "multi_label_classification"
"""What transformers calls a model any number of whose labels may hold of a text."""


class ModerationEndpoint:
    """OpenAI's `POST /v1/moderations`, wherever it is."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, follow_redirects=False, timeout=None)

    async def flags(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Raises CheckFailed for no answer, or one that is none."""
        try:
            answer = await self._client.post(self._url, json={"input": list(texts)})
            answer.raise_for_status()
            results = answer.json()["results"]
            flags = [_categories(result) if result["flagged"] else () for result in results]
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckFailed(f"{self._url}: {error or type(error).__name__}") from error
        if len(flags) != len(texts):
            raise CheckFailed(f"{self._url}: {len(flags)} results for {len(texts)} texts")
        return flags

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()


def _categories(result: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, flagged in result.get("categories", {}).items() if flagged) or ("flagged",)


class LocalClassifier:
    """A transformers model for sequence classification, in a thread of this process.

    Raises: ServeError if the directory holds none, or it has no such labels.
    """

    def __init__(self, directory: Path, labels: Sequence[str], threshold: float) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if not directory.is_dir():
            raise _no_classifier(directory, "no such directory")
        try:
            here = {"local_files_only": True}
            self._tokenizer = AutoTokenizer.from_pretrained(directory, truncation_side="left", **here)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                directory, use_safetensors=True, **here
            ).eval()
        except (OSError, ValueError) as error:
            raise _no_classifier(directory, str(error)) from error
        names: dict[int, str] = self._model.config.id2label
        self._labels = {number: name for number, name in names.items() if name in labels}
        if not labels or set(self._labels.values()) != set(labels):
            raise ServeError(
                directory,
                expected="--safety-labels, the labels that are not to pass",
                found=", ".join(labels) or "none",
                next_step=f"it has {', '.join(names.values())}",
            )
        # As transformers reads it: labels that exclude each other, unless it says otherwise or has one alone.
        self._is_independent = self._model.config.problem_type == MULTI_LABEL or len(names) == 1
        self._threshold = threshold
        self._thread = ThreadPoolExecutor(1, "safety")

    async def flags(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """In its own thread, one call at a time; raises CheckFailed where the model does."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(self._flags, texts))
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckFailed(str(error)) from error

    def _flags(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        import torch

        batch = self._tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**batch).logits.float()
        probabilities = (logits.sigmoid() if self._is_independent else logits.softmax(-1)).tolist()
        return [
            tuple(name for number, name in self._labels.items() if row[number] >= self._threshold)
            for row in probabilities
        ]

    async def close(self) -> None:
        """Ends its thread."""
        self._thread.shutdown(cancel_futures=True)


def _no_classifier(directory: Path, found: str) -> ServeError:
    return ServeError(
        directory,
        expected="a transformers model for sequence classification, in safetensors",
        found=found,
        next_step="name another, or the URL of a moderation endpoint: --safety",
    )
