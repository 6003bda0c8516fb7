"""What is told of servers that cannot be asked; real ones are asked in tests/end_to_end."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from malmoi.errors import RecipeError, ServeError
from malmoi.windows import Window
from tests.support.checkpoints import KOREAN, save_tokenizer
from train.evaluation.loading import load_tokenizer
from train.evaluation.served import SAMPLE, ServedModel

Answer = tuple[int, Mapping[str, Any]]


@contextmanager
def serving(script: Mapping[str, list[Answer]]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives each path's answers in turn, the last for ever; its address, and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers = script.get(self.path, [(404, {"error": "no such path"})])
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("Retry-After", "0.01")
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815  # its parent names it

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def models(**fields: Any) -> list[Answer]:
    return [(200, {"data": [{"id": "demo", "root": "/no/such/place", "max_model_len": 64} | fields]})]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tokenizer"
    save_tokenizer(folder, sentences=KOREAN)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


@pytest.fixture(scope="module")
def tokens(tokenizer: Path) -> list[int]:
    found: list[int] = load_tokenizer(tokenizer).encode(SAMPLE, add_special_tokens=False)
    return found


def test_a_server_that_cannot_be_reached_is_named() -> None:
    with serving({}) as (address, _):
        pass
    with pytest.raises(ServeError, match=rf"{address}: expected a server that answers, found ConnectError"):
        ServedModel(address, None, "none")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({}, r"/v1/models: expected an answer, found status 404"),
        ({"/v1/models": [(401, {"error": "who?"})]}, r"found status 401: .*--key-file"),
        ({"/v1/models": [(200, {"data": []})]}, "found no model in /v1/models"),
        ({"/v1/models": [(200, {"data": [{"id": "gpt"}]})]}, "found one without max_model_len"),
    ],
)
def test_a_server_of_another_kind_is_told(script: dict[str, list[Answer]], expected: str) -> None:
    with serving(script) as (address, _), pytest.raises(ServeError, match=expected) as told:
        ServedModel(address, None, "none")
    assert "\n" not in str(told.value)


def test_a_tokenizer_must_be_at_hand_and_the_servers_own(tokenizer: Path, tokens: list[int]) -> None:
    with (
        serving({"/v1/models": models(), "/tokenize": [(200, {"tokens": [1, 2, 3]})]}) as (address, _),
    ):
        with pytest.raises(RecipeError, match=r"--tokenizer: .*found /no/such/place, which is not here"):
            ServedModel(address, None, "none")
        with pytest.raises(RecipeError, match=r"tokenizer that .* serves demo with, found another"):
            ServedModel(address, tokenizer, "none")
    with serving({"/v1/models": models(root=str(tokenizer)), "/tokenize": [(200, {"tokens": tokens})]}) as (
        address,
        _,
    ):
        found = ServedModel(f"{address}/v1", None, "none")
    assert (found.name, found.model, found.max_tokens) == ("demo", address, 64)


def test_a_busy_server_is_asked_again_and_only_predicted_tokens_count(
    tokenizer: Path, tokens: list[int]
) -> None:
    told = {"choices": [{"logprobs": {"token_logprobs": [None, -1.0, -2.0, -4.0, -8.0]}}]}
    script: dict[str, list[Answer]] = {
        "/v1/models": models(),
        "/tokenize": [(200, {"tokens": tokens})],
        "/v1/completions": [(429, {}), (503, {}), (200, told)],
    }
    with serving(script) as (address, asked):
        found = ServedModel(address, tokenizer, "none").nats([Window(ids=[5, 6, 7, 8], first=2)])
    assert found == [6.0], "neither the token that is only read nor the one that is generated"
    assert asked.count("/v1/completions") == 3


def test_a_server_that_stays_busy_is_given_up(tokenizer: Path, tokens: list[int]) -> None:
    script: dict[str, list[Answer]] = {
        "/v1/models": models(),
        "/tokenize": [(200, {"tokens": tokens})],
        "/v1/completions": [(429, {"error": "later"})],
    }
    with serving(script) as (address, _), pytest.raises(ServeError, match=r"found status 429: .*later"):
        ServedModel(address, tokenizer, "none").nats([Window(ids=[5, 6, 7, 8], first=2)])


def test_a_server_that_tells_no_likelihoods_is_refused(tokenizer: Path, tokens: list[int]) -> None:
    script: dict[str, list[Answer]] = {
        "/v1/models": models(),
        "/tokenize": [(200, {"tokens": tokens})],
        "/v1/completions": [(200, {"choices": [{"text": "a", "logprobs": None}]})],
    }
    with serving(script) as (address, _), pytest.raises(ServeError, match="likelihoods of a prompt's tokens"):
        ServedModel(address, tokenizer, "none").nats([Window(ids=[5, 6, 7, 8], first=2)])
