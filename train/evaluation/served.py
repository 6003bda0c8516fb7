"""A model behind an address: malmoi-serve's, or any server with vLLM's OpenAI API."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from lm_eval.models.openai_completions import LocalCompletionsAPI
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from malmoi.chat import Message
from malmoi.errors import RecipeError, ServeError
from malmoi.speed import Speed, generation_speed
from malmoi.windows import Window
from train.evaluation.harness import quiet
from train.evaluation.loading import load_tokenizer
from train.generation import Answer
from train.tuning.rating.endpoint import LONGEST_DETAIL, retry_after

NUM_STREAMS: Final = 8
"""Requests on their way at once."""
TIMEOUT_S: Final = 600.0
ATTEMPTS: Final = 6
RETRIED: Final = (429, 502, 503, 504)
LONGEST_WAIT_S: Final = 30.0
SAMPLE: Final = "The capital of Korea is 서울특별시. 다람쥐 헌 쳇바퀴에 타고파 #1234\n"
"""What a tokenizer is known by."""


class ServedModel:
    """The model that a server serves, and the tokenizer that it is served with.

    The server names the directory that it serves; where that is not on this machine, the caller names one.
    """

    digest = None

    def __init__(self, address: str, tokenizer: Path | None, key: str) -> None:
        """Raises: ServeError if nothing useful answers; RecipeError for a tokenizer that is not its own."""
        self._url = address.rstrip("/").removesuffix("/v1")
        self._key = key
        with self._client() as client:
            served = self._served(client)
        self.name = str(served["id"])
        self.model = self._url
        self.max_tokens = int(served["max_model_len"])
        self.identity = f"{self._url} {served['id']} {served.get('root')} {self.max_tokens}"
        self._directory = tokenizer or Path(str(served.get("root")))
        if tokenizer is None and not (self._directory / "tokenizer_config.json").exists():
            raise RecipeError(
                "--tokenizer",
                expected=f"the directory of the model that {self._url} serves",
                found=f"{self._directory}, which is not here",
                next_step="name a copy of its tokenizer: --tokenizer DIR",
            )
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(self._directory)
        self._check_tokenizer()

    def _client(self) -> httpx.Client:
        return httpx.Client(headers={"Authorization": f"Bearer {self._key}"}, timeout=TIMEOUT_S)

    def _served(self, client: httpx.Client) -> Mapping[str, Any]:
        models = self._ask(client, "GET", "/v1/models").get("data")
        if not models or "max_model_len" not in models[0]:
            raise ServeError(
                self._url,
                expected="a server that tells what it serves, as vLLM's does",
                found="no model in /v1/models" if not models else "one without max_model_len",
                next_step="name the address of malmoi-serve or of vLLM",
            )
        first: Mapping[str, Any] = models[0]
        return first

    def _check_tokenizer(self) -> None:
        body = {"model": self.name, "prompt": SAMPLE, "add_special_tokens": False}
        with self._client() as client:
            theirs = self._ask(client, "POST", "/tokenize", body)["tokens"]
        if theirs != self.tokenizer.encode(SAMPLE, add_special_tokens=False):
            raise RecipeError(
                self._directory,
                expected=f"the tokenizer that {self._url} serves {self.name} with",
                found="another: it cuts a sample differently",
                next_step="name the served model's directory: --tokenizer DIR",
            )

    def nats(self, windows: Sequence[Window]) -> list[float]:
        """See Subject. Raises: ServeError if the server does not tell likelihoods."""
        return self._together(self._window_nats, windows, "window")

    def _window_nats(self, client: httpx.Client, window: Window) -> float:
        body = {
            "model": self.name,
            "prompt": list(window.ids),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "echo": True,
        }
        found = self._ask(client, "POST", "/v1/completions", body)
        try:
            logprobs = found["choices"][0]["logprobs"]["token_logprobs"]
            return -float(sum(logprobs[window.first : len(window.ids)]))
        except (LookupError, TypeError) as error:
            raise ServeError(
                self._url,
                expected="likelihoods of a prompt's tokens (echo with logprobs)",
                found="an answer without them",
                next_step="name the address of malmoi-serve or of vLLM",
            ) from error

    def harness(self, batch_size: int | None, *, is_chat: bool) -> Any:
        """See Subject. A rendered chat begins with its own bos, so none is added there."""
        with quiet():
            return LocalCompletionsAPI(
                model=self.name,
                base_url=f"{self._url}/v1/completions",
                tokenizer=str(self._directory),
                tokenizer_backend="huggingface",
                header={"Authorization": f"Bearer {self._key}"},
                batch_size=batch_size or 1,
                num_concurrent=NUM_STREAMS,
                max_length=self.max_tokens,
                max_retries=ATTEMPTS,
                add_bos_token=not is_chat,
                timeout=TIMEOUT_S,
            )

    def answers(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """See Subject."""

        def answer(client: httpx.Client, turns: Sequence[Message]) -> Answer:
            messages = [message.as_dict() for message in turns]
            body = {"model": self.name, "messages": messages, "temperature": 0, "max_tokens": max_new_tokens}
            found = self._ask(client, "POST", "/v1/chat/completions", body)
            choice = found["choices"][0]
            has_ended = choice["finish_reason"] == "stop"
            return Answer(
                text=choice["message"]["content"] or "",
                num_tokens=found["usage"]["completion_tokens"] - has_ended,
                has_ended=has_ended,
            )

        return self._together(answer, conversations, "answer")

    def speed(self, texts: Sequence[str]) -> Speed:
        """See Subject. Raises: ServeError if the server stops answering."""
        try:
            return generation_speed(self._url, self.name, texts, key=self._key)
        except OSError as error:
            raise _unreachable(self._url, str(error)) from error

    def _together(self, ask: Callable[[httpx.Client, Any], Any], asked: Sequence[Any], unit: str) -> list[Any]:
        """What `ask` makes of each, NUM_STREAMS at a time."""
        with self._client() as client, ThreadPoolExecutor(NUM_STREAMS) as streams:
            found = streams.map(partial(ask, client), asked)
            return list(tqdm(found, total=len(asked), unit=unit, disable=None))

    def _ask(
        self, client: httpx.Client, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """The answer to a request, asked again while the server is busy.

        Raises: ServeError if there is none.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = client.request(method, self._url + path, json=body)
            except httpx.HTTPError as error:
                raise _unreachable(self._url, f"{type(error).__name__}: {error}") from error
            if response.status_code not in RETRIED or attempt == ATTEMPTS:
                break
            time.sleep(min(LONGEST_WAIT_S, retry_after(response.headers, time.time()) or 2.0**attempt))
        if response.is_error:
            detail = " ".join(response.text.replace(self._key, "***").split())[:LONGEST_DETAIL]
            raise ServeError(
                self._url + path,
                expected="an answer",
                found=f"status {response.status_code}: {detail}",
                next_step="check the address and --key-file; it must be vLLM's OpenAI API or malmoi-serve",
            )
        try:
            found: Mapping[str, Any] = response.json()
        except ValueError as error:
            raise _unreachable(self._url + path, "an answer that is no JSON") from error
        return found


def _unreachable(where: str, found: str) -> ServeError:
    return ServeError(
        where,
        expected="a server that answers",
        found=found,
        next_step="check the address, and that the server runs; the same command goes on where it was",
    )
