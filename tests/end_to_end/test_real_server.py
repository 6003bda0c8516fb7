"""malmoi-serve as people start it: vLLM's CPU engine in its own processes, the demo, the openai client."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from malmoi.chat import Message, render
from tests.support.answers import answer_of_transformers
from tests.support.running_server import RunningServer, running_server, wait_until_gone
from tests.train.tuning.conversations import CONVERSATIONS

QUESTION = "대한민국의 수도는 어디인가요?"
ENDLESS = {"max_tokens": 900, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


def client_of(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def ask(client: openai.OpenAI, question: str, **request: object) -> Any:
    """A ChatCompletion, or with stream=True an iterator of its chunks."""
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="demo", messages=messages, **request)  # type: ignore[call-overload]


def test_answers_in_korean(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTION)
    assert "서울" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_streamed_text_is_whole_text_and_usage_is_right(client: openai.OpenAI, demo_checkpoint: Path) -> None:
    whole = ask(client, QUESTION, temperature=0)
    chunks = list(ask(client, QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert "�" not in text
    usage = chunks[-1].usage
    assert usage == whole.usage
    assert whole.usage is not None

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoint)
    prompt = render(
        [Message("user", QUESTION)],
        eos=tokenizer.eos_token,
        bos=tokenizer.bos_token,
        add_generation_prompt=True,
    )
    assert whole.usage.prompt_tokens == len(tokenizer.encode(prompt, add_special_tokens=False))
    assert whole.usage.completion_tokens == len(tokenizer.encode(text, add_special_tokens=False)) + 1


def test_served_prompt_equals_floor_and_saved_tokenizer(server: RunningServer, demo_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    from malmoi.chat import GOLDEN_CONVERSATION

    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoint)
    messages = [message.as_dict() for message in GOLDEN_CONVERSATION]
    request = {"model": "demo", "messages": messages}
    tokenized = httpx.post(f"{server.url}/tokenize", json=request).json()["tokens"]
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    rendered = render(
        GOLDEN_CONVERSATION, eos=tokenizer.eos_token, bos=tokenizer.bos_token, add_generation_prompt=True
    )
    assert tokenized == encoded["input_ids"] == tokenizer.encode(rendered, add_special_tokens=False)
    assert tokenized.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_server_feeds_the_tokens_that_sft_and_dpo_trained_on(
    server: RunningServer, demo_checkpoint: Path, name: str
) -> None:
    from transformers import AutoTokenizer

    from train.tuning.dialogues import Dialogue, Preference
    from train.tuning.examples import encode_dialogues, encode_preferences

    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoint)
    *prompt, answer = CONVERSATIONS[name]
    request = {"model": "demo", "messages": [message.as_dict() for message in prompt]}
    fed = httpx.post(f"{server.url}/tokenize", json=request).json()["tokens"]
    (example,), _ = encode_dialogues(tokenizer, [Dialogue(messages=CONVERSATIONS[name])], 10**6)
    preference = Preference(prompt=tuple(prompt), chosen=answer.content, rejected="몰라")
    (pair,), _ = encode_preferences(tokenizer, [preference], 10**6, 10**6)
    assert fed == pair.prompt_ids == example.input_ids[: len(fed)]


def test_vllms_greedy_answers_are_transformers_greedy_answers(
    client: openai.OpenAI, demo_checkpoint: Path
) -> None:
    for question in (QUESTION, "12 더하기 7은 얼마인가요?", "안녕하세요!"):
        expected = answer_of_transformers(demo_checkpoint, question)
        assert ask(client, question, temperature=0, max_tokens=64).choices[0].message.content == expected


def test_completions_models_and_probes(client: openai.OpenAI, server: RunningServer) -> None:
    completion = client.completions.create(model="demo", prompt="대한민국", max_tokens=4, temperature=0)
    assert completion.usage is not None
    assert completion.usage.completion_tokens <= 4
    assert [model.id for model in client.models.list()] == ["demo"]
    statuses = {
        path: httpx.get(server.url + path).status_code for path in ("/health", "/ready", "/docs", "/version")
    }
    assert statuses == {"/health": 200, "/ready": 200, "/docs": 404, "/version": 404}


def test_metrics_of_ours_beside_vllms(client: openai.OpenAI, server: RunningServer) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    def total(name: str) -> float:
        text = httpx.get(f"{server.url}/metrics").text
        samples = [
            s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name
        ]
        assert samples, name
        return sum(s.value for s in samples if s.labels.get("route", "chat") == "chat")

    counters = {name: total(name) for name in ("malmoi_characters_total", "malmoi_request_queue_seconds_count")}
    text = ask(client, QUESTION, temperature=0).choices[0].message.content
    assert text
    assert total("malmoi_characters_total") == counters["malmoi_characters_total"] + len(text)
    assert total("malmoi_request_queue_seconds_count") == counters["malmoi_request_queue_seconds_count"] + 1
    assert total("vllm:e2e_request_latency_seconds_count") > 0
    for name in ("time_to_first_token", "inter_token_latency", "request_duration", "seconds_per_character"):
        assert total(f"malmoi_{name}_seconds_count".replace("character_seconds", "character")) > 0


def test_first_byte_starts_the_clock(server: RunningServer) -> None:
    """A client that sends its body late pays for it in the time to first token, as it should."""
    from prometheus_client.parser import text_string_to_metric_families

    def ttft_sum() -> float:
        text = httpx.get(f"{server.url}/metrics").text
        name = "malmoi_time_to_first_token_seconds_sum"
        return sum(s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == name)

    body = f'{{"model":"demo","stream":true,"messages":[{{"role":"user","content":"{QUESTION}"}}]}}'.encode()

    async def slow_request() -> bytes:
        host, port = server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n".encode())
        await asyncio.sleep(1.0)
        writer.write(b"\r\n" + body)
        answer = await reader.read()
        writer.close()
        return answer

    before = ttft_sum()
    assert b"200 OK" in asyncio.run(slow_request())
    assert ttft_sum() - before >= 1.0


def test_stdout_holds_the_url_and_one_curl_to_paste(server: RunningServer) -> None:
    lines = server.output.read_text()
    assert lines.startswith(f"malmoi serves demo at {server.url}\n")
    curl = lines[lines.index("curl ") :]
    pasted = subprocess.run(["bash", "-c", curl], check=True, capture_output=True, text=True)
    assert "서울" in pasted.stdout


def terminate(server: RunningServer) -> None:
    server.process.send_signal(signal.SIGTERM)


def press_ctrl_c(server: RunningServer) -> None:
    """A terminal sends it to the whole process group."""
    os.killpg(server.process.pid, signal.SIGINT)


UNHURRIED = ("--drain-timeout", "240", "--body-timeout", "240")
"""The stream takes as long as the machine lets it; by default drain and half a body are given up after 30 s."""


@pytest.mark.parametrize("end", [terminate, pytest.param(press_ctrl_c, marks=pytest.mark.slow)])
def test_signal_drains_and_exits_0(
    demo_checkpoint: Path, tmp_path: Path, end: Callable[[RunningServer], None]
) -> None:
    with (
        running_server(tmp_path, str(demo_checkpoint), "--name", "demo", *UNHURRIED) as server,
        client_of(server) as client,
    ):
        processes = server.processes()
        stream = ask(client, QUESTION, stream=True, temperature=0, **ENDLESS)
        next(iter(stream))
        with half_sent_request(server) as finish:
            end(server)
            refused = _first_refusal(server)
            assert httpx.get(f"{server.url}/ready", timeout=60).status_code == 503
            assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200
            chunks = list(stream)
            assert server.process.poll() is None, "a request that was let in is still on its way"
            answer = finish()
        assert chunks[-1].choices[0].finish_reason == "length", "the running request was finished"
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert "서울".encode() in answer
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert server.wait() == 0
        assert wait_until_gone(processes, 10) == []


@contextmanager
def half_sent_request(server: RunningServer) -> Iterator[Callable[[], bytes]]:
    """A chat request of which the server has all but the last byte; calling what it yields sends that."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(
        {"model": "demo", "messages": [{"role": "user", "content": QUESTION}]}, ensure_ascii=False
    )
    raw = body.encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode())
        connection.sendall(raw[:-1])
        # Answered after it: the event loop has let the other one in.
        httpx.get(f"{server.url}/health", timeout=60)

        def finish() -> bytes:
            connection.sendall(raw[-1:])
            return b"".join(iter(lambda: connection.recv(65536), b""))

        yield finish


def _first_refusal(server: RunningServer) -> httpx.Response:
    deadline = time.monotonic() + 60
    request = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 1}
    while time.monotonic() < deadline:
        response = httpx.post(f"{server.url}/v1/chat/completions", json=request, timeout=60)
        if response.status_code != 200:
            return response
    raise AssertionError("never refused")


def test_killed_engine_turns_probes_503_and_the_exit_code_non_zero(
    demo_checkpoint: Path, tmp_path: Path
) -> None:
    with running_server(tmp_path, str(demo_checkpoint)) as server:
        processes = server.processes()
        statuses: dict[str, set[int]] = {"/health": set(), "/ready": set()}
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                try:
                    for path, seen in statuses.items():
                        seen.add(httpx.get(server.url + path).status_code)
                except httpx.TransportError:
                    return
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        core = next(p for p in server.engine_processes() if p.name().startswith("VLLM::EngineCor"))
        core.kill()
        exit_code = server.wait()
        stop.set()
        watcher.join()
        assert exit_code == 1
        assert all(503 in seen for seen in statuses.values()), statuses
        said = server.log.read_text().splitlines()
        assert sum(line.startswith("error: engine: expected a running engine") for line in said) == 1
        assert wait_until_gone(processes, 10) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_starting_ends_everything(tiny_checkpoint: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "server", str(tiny_checkpoint), "--port", "0", "--short-lived"]
    with (
        Path("/dev/full").open("wb") as full_disk,  # its line about the signal cannot be written either
        subprocess.Popen(command, stdout=full_disk, stderr=full_disk) as process,
    ):
        api = psutil.Process(process.pid)
        deadline = time.monotonic() + 120
        while not any(child.name().startswith("VLLM::Worker") for child in api.children(recursive=True)):
            assert time.monotonic() < deadline, "the worker never came up"
            time.sleep(0.05)
        processes = [api, *api.children(recursive=True)]
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    assert wait_until_gone(processes, 20) == []
