"""The safety check: what is flagged does not pass, what could not be checked does not either."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from malmoi.errors import ServeError
from server.classifiers import LocalClassifier, ModerationEndpoint
from server.safety import CHECKED_CHARACTERS, OVERLAP, Check, CheckFailed, Safety, build_classifier, pieces
from tests.server.conftest import Served, ServeScript
from tests.server.test_gate import (
    ANSWER,
    CHAT,
    QUESTION,
    answering,
    chat,
    client_of,
    stream_events,
    streamed_text,
)
from tests.server.test_hangul import ids, scripted, text_of, with_eos
from tests.server.visitor import Visitor
from tests.support.scripted_engine import Script

WINDOW = 6


class WordClassifier:
    """Flags texts with a word in them; remembers what it was asked."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.asked: list[str] = []
        self.number_that_works = 10**6

    async def flags(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        self.asked += texts
        await asyncio.sleep(0)
        self.number_that_works -= 1
        if self.number_that_works < 0:
            raise CheckFailed("out of order")
        return [tuple(word for word in self.words if word in text) for text in texts]

    async def close(self) -> None:
        pass


async def checked(serve_script: ServeScript, answer: str, classifier: WordClassifier) -> Served:
    served = await answering(serve_script, answer)
    scripted(served, with_eos(served, ids(served, answer)))  # each token a step of its own
    settings = Safety(safety="words", safety_window=WINDOW, safety_timeout_s=0.2)
    tokenizer = served.engine.renderer.get_tokenizer()
    served.gate._check = Check(classifier, settings, tokenizer.decode)
    return served


def deltas(body: str) -> list[dict[str, Any]]:
    return [event["choices"][0] for event in stream_events(body) if event["choices"]]  # type: ignore[index]


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_not_flagged_passes_unchanged(serve_script: ServeScript, stream: bool) -> None:
    async def scenario() -> None:
        classifier = WordClassifier("나쁜")
        served = await checked(serve_script, ANSWER, classifier)
        unchecked = await answering(serve_script, ANSWER)
        async with client_of(served) as client, client_of(unchecked) as plain:
            answer = await chat(client, stream=stream, n=2)
            expected = await chat(plain, stream=stream, n=2)
        assert answer.status_code == 200
        if stream:
            for index in (0, 1):
                mine = [choice for choice in deltas(answer.text) if choice["index"] == index]
                assert "".join(choice["delta"].get("content") or "" for choice in mine) == ANSWER
                assert mine[-1]["finish_reason"] == "stop"
        else:
            assert answer.json()["choices"] == expected.json()["choices"]
        assert any(ANSWER in text for text in classifier.asked), "all of it was checked"
        assert QUESTION[0]["content"] in classifier.asked
        assert served.sample("malmoi_requests_total", route="chat", outcome="ok") == 1

    asyncio.run(scenario())


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"text": "나쁜"}'}}


@pytest.mark.parametrize(
    "request_body",
    [
        {"messages": [{"role": "user", "content": "나쁜 질문"}]},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "나쁜"}]}, *QUESTION]},
        {"messages": [{"role": "user", "content": "나"}, {"role": "user", "content": "쁜 나쁜"}]},
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "나쁜"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "thinking", "thinking": "나쁜"}]}]},
        {"messages": [{"role": "나쁜", "content": "말"}]},
        {"messages": [*QUESTION, {"role": "assistant", "reasoning": "나쁜", "content": "말"}, *QUESTION]},
        {"messages": [*QUESTION, {"role": "assistant", "tool_calls": [CALL]}, *QUESTION]},
        {
            "messages": QUESTION,
            "tools": [{"type": "function", "function": {"name": "f", "description": "나쁜"}}],
        },
        {"prompt": "이 나쁜"},
        {"prompt": ["좋은", "나쁜"]},
        {"prompt": "좋" * 5000 + "나쁜"},
    ],
)
def test_prompt_that_is_flagged_is_refused_unheard(
    serve_script: ServeScript, request_body: dict[str, Any]
) -> None:
    async def scenario() -> None:
        served = await checked(serve_script, ANSWER, WordClassifier("나쁜"))
        path = CHAT if "messages" in request_body else "/v1/completions"
        visitor = Visitor(served.gate, path, request_body)
        await visitor.served
        assert visitor.status == 400
        error = visitor.json()["error"]
        assert error["code"] == "content_filter"
        assert error["param"] == next(iter(request_body))
        assert "나쁜" in error["message"]
        assert served.engine.core.requests == []
        assert served.sample("malmoi_requests_total", outcome="filtered") == 1

    asyncio.run(scenario())


def test_prompt_of_token_ids_is_read(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await checked(serve_script, ANSWER, WordClassifier("나쁜"))
        for prompt in (ids(served, "이 나쁜"), [[5], ids(served, "이 나쁜")]):
            visitor = Visitor(served.gate, "/v1/completions", {"prompt": prompt})
            await visitor.served
            assert visitor.json()["error"]["code"] == "content_filter"
        garbages: list[object] = [[5, "x"], [{}], [[None]], 7, {"a": 1}, None]
        for garbage in garbages:
            visitor = Visitor(served.gate, "/v1/completions", {"prompt": garbage})
            await visitor.served
            assert visitor.status == 400
        odd: list[object] = [
            [{"role": [], "content": {}}],
            [{"role": "user", "content": [{"type": []}]}],
            [7],
            7,
        ]
        for messages in odd:
            visitor = Visitor(served.gate, CHAT, {"messages": messages})
            await visitor.served
            assert visitor.status == 400

    asyncio.run(scenario())


def test_stream_ends_where_it_is_flagged(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        good, bad = "좋은 말을 많이 하고 나서 ", "나쁜 말을 합니다"
        classifier = WordClassifier("나쁜")
        served = await checked(serve_script, good + bad + "그리고 아주 길게 계속" * 20, classifier)
        async with client_of(served) as client:
            answer = await chat(client, stream=True)
        core = served.engine.core
        assert core.aborted == {core.requests[0].request_id}, "nobody pays for the rest"
        choices = deltas(answer.text)
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        assert good.startswith(text)
        assert len(good) - len(text) <= WINDOW
        assert choices[-1]["finish_reason"] == "content_filter"
        assert "나쁜" in choices[-1]["delta"]["refusal"]
        assert served.sample("malmoi_requests_total", route="chat", outcome="filtered") == 1
        assert served.gate.slots.num_running == 0

    asyncio.run(scenario())


def test_no_more_than_the_window_is_held_back(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        answer = "한국어 문장이 이어집니다 " * 5
        go_on = asyncio.Event()
        served = await checked(serve_script, answer, WordClassifier("없음"))
        tokens = with_eos(served, ids(served, answer))
        produced = 0

        async def hold(index: int) -> None:
            nonlocal produced
            await asyncio.sleep(0.002)
            if index == len(tokens) - 5:
                produced = index
                await go_on.wait()

        scripted(served, tokens)
        script = served.engine.core.script
        served.engine.core.script = type(script)(token_ids=tokens, before_token=hold)
        visitor = Visitor(served.gate, CHAT, {"messages": QUESTION, "stream": True})
        while not produced:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        so_far = text_of(served, tokens[:produced])
        sent = visitor.body.decode() + "data: [DONE]\n\n"
        assert 0 <= len(so_far) - len(streamed_text(sent)) <= WINDOW
        go_on.set()
        await visitor.served
        assert streamed_text(visitor.body.decode()) == answer

    asyncio.run(scenario())


def test_whole_answer_that_is_flagged_is_emptied(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await checked(serve_script, "아주 나쁜 말", WordClassifier("나쁜"))
        async with client_of(served) as client:
            answer = await chat(client)
            completion = await client.post("/v1/completions", json={"model": "tiny", "prompt": "좋은"})
        choice = answer.json()["choices"][0]
        assert choice["finish_reason"] == "content_filter"
        assert choice["message"]["content"] is None
        assert "나쁜" in choice["message"]["refusal"]
        assert "아주" not in answer.text
        assert answer.json()["usage"]["completion_tokens"] > 0
        assert completion.json()["choices"][0]["finish_reason"] == "content_filter"
        assert completion.json()["choices"][0]["text"] == ""
        assert served.sample("malmoi_requests_total", outcome="filtered") == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_what_cannot_be_checked_is_refused(serve_script: ServeScript, how: str) -> None:
    async def scenario() -> None:
        classifier = WordClassifier("나쁜")
        served = await checked(serve_script, ANSWER * 3, classifier)
        if how == "fails":
            classifier.number_that_works = 0
        else:

            async def hang(texts: Sequence[str]) -> list[tuple[str, ...]]:
                await asyncio.sleep(60)
                return []

            classifier.flags = hang  # type: ignore[method-assign]
        async with client_of(served) as client:
            refused = await chat(client)
        assert (refused.status_code, served.engine.core.requests) == (503, [])
        assert "retry-after" in refused.headers

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_answer_that_cannot_be_checked_does_not_pass(serve_script: ServeScript, stream: bool) -> None:
    async def scenario() -> None:
        for number_that_works in (1, 3):
            classifier = WordClassifier("나쁜")
            classifier.number_that_works = number_that_works
            served = await checked(serve_script, ANSWER * 3, classifier)
            async with client_of(served) as client:
                answer = await chat(client, stream=stream)
            core = served.engine.core
            if stream:
                assert core.aborted == {core.requests[0].request_id}
            if stream and number_that_works > 1:
                assert answer.status_code == 200
                lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
                *begun, error = [json.loads(line.removeprefix("data: ")) for line in lines]
                assert error["error"]["code"] == 503
                assert begun
            elif number_that_works == 1:
                assert answer.status_code == 503, "nothing of it was written yet"
                assert ANSWER[:5] not in answer.text

    asyncio.run(scenario())


def test_error_before_anything_has_passed_is_the_status(serve_script: ServeScript) -> None:
    """Though text was held back by then; and what was, stays back."""

    async def scenario() -> None:
        classifier = WordClassifier("나쁜")
        served = await checked(serve_script, ANSWER, classifier)

        async def die(index: int) -> None:
            await asyncio.sleep(0.002)
            if index == 2:
                served.engine.core.die()

        tokens = served.engine.core.script.token_ids
        served.engine.core.script = Script(token_ids=tokens, before_token=die)
        async with client_of(served) as client:
            answer = await chat(client, stream=True)
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["code"] == 500
        assert classifier.asked == [QUESTION[0]["content"]]
        assert served.sample("malmoi_requests_total", route="chat", outcome="failed") == 1

    asyncio.run(scenario())


def test_long_prompts_are_checked_in_pieces_that_overlap() -> None:
    text = "".join(chr(0xAC00 + index % 11172) for index in range(3 * CHECKED_CHARACTERS))
    parts = list(pieces(text))
    assert all(len(part) <= CHECKED_CHARACTERS for part in parts)
    for start in range(0, len(text) - OVERLAP, 100):
        assert any(text[start : start + OVERLAP] in part for part in parts)


class Moderation(BaseHTTPRequestHandler):
    """An endpoint as OpenAI's; what it answers is in `replies`, else it flags 나쁜."""

    replies: ClassVar[list[tuple[int, Any]]] = []
    seen: ClassVar[list[tuple[str | None, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.headers["Authorization"], body))
        results = [
            {"flagged": "나쁜" in text, "categories": {"violence": "나쁜" in text, "hate": False}}
            for text in body["input"]
        ]
        status, reply = self.replies.pop(0) if self.replies else (200, {"results": results})
        raw = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Moderation) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/moderations"
        server.shutdown()


def test_moderation_endpoint(endpoint: str) -> None:
    async def scenario() -> None:
        moderation = ModerationEndpoint(endpoint, "secret")
        assert await moderation.flags(["좋은 말", "나쁜 말"]) == [(), ("violence",)]
        assert Moderation.seen[-1] == ("Bearer secret", {"input": ["좋은 말", "나쁜 말"]})
        broken: list[tuple[int, Any]] = [
            (500, {}),
            (302, {}),
            (200, []),
            (200, {"results": []}),
            (200, {"results": [{}]}),
            (200, {"results": [None]}),
        ]
        for reply in broken:
            Moderation.replies.append(reply)
            with pytest.raises(CheckFailed):
                await moderation.flags(["x"])
        await moderation.close()
        gone = ModerationEndpoint("http://127.0.0.1:9/", None)
        with pytest.raises(CheckFailed):
            await gone.flags(["x"])
        await gone.close()

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def classifier_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that was trained to tell two words apart."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("classifier")
    words = ["[PAD]", "[UNK]", "좋은", "나쁜", "말", "글"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=16,
        id2label={0: "safe", 1: "violent"},
        label2id={"safe": 0, "violent": 1},
    )
    model = BertForSequenceClassification(config)
    batch = tokenizer(["좋은 말", "좋은 글", "나쁜 말", "나쁜 글"], return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        model(**batch, labels=torch.tensor([0, 0, 1, 1])).loss.backward()
        optimizer.step()
    model.save_pretrained(directory)
    return directory


def test_local_classifier(classifier_directory: Path) -> None:
    async def scenario() -> None:
        settings = Safety(safety=str(classifier_directory), safety_labels=("violent",))
        classifier = build_classifier(settings)
        assert isinstance(classifier, LocalClassifier)
        texts = ["좋은 말", "나쁜 글", "좋은 글", "말 " * 100 + "나쁜 말"]
        assert await classifier.flags(texts) == [(), ("violent",), (), ("violent",)]
        await classifier.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("shift", "flagged"), [(20.0, ("violent",)), (-20.0, ())])
@pytest.mark.parametrize("num_labels", [1, 2])
def test_labels_that_do_not_exclude_each_other_count_each_for_itself(
    classifier_directory: Path, tmp_path: Path, num_labels: int, shift: float, flagged: tuple[str, ...]
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    AutoTokenizer.from_pretrained(classifier_directory).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(classifier_directory)
    head, config = model.classifier, model.config
    head.weight = torch.nn.Parameter(head.weight[-num_labels:])
    head.bias = torch.nn.Parameter(head.bias[-num_labels:] + shift)
    config.id2label = dict(enumerate(["safe", "violent"][-num_labels:]))
    config.problem_type = "multi_label_classification" if num_labels > 1 else None
    model.save_pretrained(tmp_path)

    async def scenario() -> None:
        classifier = LocalClassifier(tmp_path, ("violent",), 0.5)
        assert await classifier.flags(["좋은 말", "나쁜 말"]) == [flagged] * 2
        await classifier.close()

    asyncio.run(scenario())


def test_classifier_that_cannot_be_had_is_one_line(classifier_directory: Path, tmp_path: Path) -> None:
    for directory, labels, said in (
        (tmp_path / "nothing", ("violent",), "no such directory"),
        (tmp_path, ("violent",), "a transformers model"),
        (classifier_directory, (), "it has safe, violent"),
        (classifier_directory, ("violence",), "it has safe, violent"),
    ):
        with pytest.raises(ServeError, match=said):
            LocalClassifier(directory, labels, 0.5)
