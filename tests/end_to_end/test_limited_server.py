"""malmoi-serve with keys and bounds, as people run it: the real engine, the openai client, the commands."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest

from tests.support.running_server import RunningServer, running_server

pytestmark = pytest.mark.slow
QUESTION = "대한민국의 수도는 어디인가요?"
MESSAGES = [{"role": "user", "content": QUESTION}]
BOUNDS = ("--max-running", "4", "--max-waiting", "4", "--queue-timeout", "20", "--max-tokens", "600")


def keys_command(*arguments: str) -> str:
    command = [sys.executable, "-m", "server", "keys", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def key(key_file: Path) -> str:
    return keys_command("add", str(key_file), "operator", "--metrics")


@pytest.fixture(scope="module")
def limited(
    demo_checkpoint: Path, key_file: Path, key: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    arguments = (str(demo_checkpoint), "--name", "demo", "--keys", str(key_file), *BOUNDS)
    with running_server(tmp_path_factory.mktemp("limited"), *arguments) as server:
        yield server


def client_of(server: RunningServer, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def ask(client: openai.OpenAI, **request: object) -> Any:
    """A ChatCompletion."""
    return client.chat.completions.create(model="demo", messages=MESSAGES, **request)  # type: ignore[call-overload]


def num_running(server: RunningServer, key: str) -> float:
    from prometheus_client.parser import text_string_to_metric_families

    text = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {key}"}).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == "vllm:num_requests_running")


def test_openai_client_meets_errors_it_knows(limited: RunningServer, key: str, key_file: Path) -> None:
    with client_of(limited, "wrong") as client, pytest.raises(openai.AuthenticationError):
        ask(client)
    elsewhere = keys_command("add", str(key_file), "elsewhere", "--models", "other")
    slow = keys_command("add", str(key_file), "slow", "--requests-per-minute", "1")
    time.sleep(1.2)  # the file is looked at once a second
    with client_of(limited, elsewhere) as client, pytest.raises(openai.PermissionDeniedError):
        ask(client)
    with client_of(limited, slow) as client:
        answer = ask(client, temperature=0)
        assert "서울" in (answer.choices[0].message.content or "")
        with pytest.raises(openai.RateLimitError) as limit:
            ask(client)
        assert 50 <= int(limit.value.response.headers["retry-after"]) <= 60
        usage = httpx.get(f"{limited.url}/v1/usage", headers={"authorization": f"Bearer {slow}"}).json()
        assert answer.usage is not None
        assert usage["total_tokens"] == answer.usage.total_tokens
        assert usage["characters"] == len(answer.choices[0].message.content or "")
    keys_command("revoke", str(key_file), "slow")
    time.sleep(1.2)
    with client_of(limited, slow) as client, pytest.raises(openai.AuthenticationError):
        ask(client)
    with client_of(limited, key) as client, pytest.raises(openai.BadRequestError, match="from 1 to 8"):
        ask(client, n=9)


def test_burst_is_answered_whole_or_refused(limited: RunningServer, key: str) -> None:
    request = {"model": "demo", "messages": MESSAGES, "temperature": 0, "stream": True, "max_tokens": 64}

    async def burst() -> list[httpx.Response]:
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=limited.url, headers=headers, timeout=60) as client:
            return await asyncio.gather(*(client.post("/v1/chat/completions", json=request) for _ in range(40)))

    answers = asyncio.run(burst())
    assert {answer.status_code for answer in answers} == {200, 429}
    whole = {text_of(answer.text) for answer in answers if answer.status_code == 200}
    assert len(whole) == 1
    assert "서울" in whole.pop()
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert sum(answer.status_code == 200 for answer in answers) >= 8


def text_of(stream: str) -> str:
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    choices = [json.loads(event)["choices"][0] for event in events]
    pieces = [choice["delta"]["content"] for choice in choices[1:-1]]
    assert all(pieces), "no piece is empty"
    text = "".join([*pieces, choices[-1]["delta"].get("content") or ""])
    assert "\ufffd" not in text
    return text


@pytest.mark.parametrize("stream", [True, False])
def test_engine_stops_when_the_client_goes(limited: RunningServer, key: str, stream: bool) -> None:
    request = {"model": "demo", "messages": MESSAGES, "stream": stream, "ignore_eos": True, "max_tokens": 600}
    headers = {"authorization": f"Bearer {key}"}

    async def go_in_the_middle() -> None:
        async with httpx.AsyncClient(base_url=limited.url, headers=headers, timeout=60) as client:
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=request))
            while not num_running(limited, key):
                await asyncio.sleep(0.05)
            asking.cancel()
            await asyncio.wait([asking])

    asyncio.run(go_in_the_middle())
    deadline = time.monotonic() + 3
    while num_running(limited, key):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_answers_end_at_the_bound_of_the_server(limited: RunningServer, key: str) -> None:
    with client_of(limited, key) as client:
        answer = ask(client, extra_body={"ignore_eos": True})
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 600
        assert answer.choices[0].finish_reason == "length"


def test_prompt_that_ends_inside_a_character(limited: RunningServer, key: str, demo_checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoint)
    prompt = tokenizer.encode("대한민국의 수도는 뷁", add_special_tokens=False)
    with client_of(limited, key) as client:
        for missing in (1, 2):
            whole = client.completions.create(
                model="demo", prompt=prompt[:-missing], max_tokens=32, temperature=0
            )
            assert "대한민국의" not in whole.choices[0].text
            assert "\ufffd" not in whole.choices[0].text


BAD_SCHEMAS: list[dict[str, object]] = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"pattern": "(((((a*)*)*)*)*"}},
        }
    },
    {"structured_outputs": {"regex": "("}},
    {"structured_outputs": {"regex": "(a{1000}){1000}"}},
    {"structured_outputs": {"grammar": "root ::= root"}},
    {"structured_outputs": {"grammar": "no grammar"}},
    {"structured_outputs": {"choice": []}},
    {"structured_outputs": {"structural_tag": "{"}},
    {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 7}}}],
        "tool_choice": "required",
    },
    {"stop_token_ids": [-1], "min_tokens": 3},
    {"logit_bias": {"999999": 1}},
    {"allowed_token_ids": []},
    {"top_k": 2**62},
    {"seed": -1},
    {"temperature": 1e308},
]


@pytest.mark.parametrize("fields", BAD_SCHEMAS, ids=lambda fields: json.dumps(fields)[:60])
def test_what_has_crashed_engines_does_not(limited: RunningServer, key: str, fields: dict[str, object]) -> None:
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 8} | fields
    answer = httpx.post(f"{limited.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert answer.status_code in (200, 400), answer.text
    with client_of(limited, key) as client:
        assert "서울" in (ask(client, temperature=0).choices[0].message.content or "")


CLIENTS = Path(__file__).parents[2] / "build" / "clients"
SCRIPTS = Path(__file__).parents[1] / "support" / "clients"


def install_clients(language: Literal["node", "python"]) -> None:
    """Other people's clients, under CLIENTS."""
    subprocess.run([str(SCRIPTS / "install.sh"), language], check=True)


def told_by(command: list[str], server: RunningServer, key: str, directory: Path) -> Any:
    """What a client's script printed."""
    arguments = [*command, f"{server.url}/v1", key, "demo"]
    ended = subprocess.run(arguments, check=False, capture_output=True, text=True, cwd=directory, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_openai_client_for_node(limited: RunningServer, key: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not here to install the client for Node")
    install_clients("node")
    script = shutil.copy(SCRIPTS / "openai_node.mjs", CLIENTS)
    told = told_by(["node", str(script)], limited, key, CLIENTS)
    assert told["streamed"] == told["whole"]
    assert "서울" in told["whole"]
    assert told["usage"]["total_tokens"] > told["usage"]["completion_tokens"] > 0
    assert told["models"] == ["demo"]
    assert told["refusals"] == {
        "n": ["BadRequestError", 400, "n"],
        "model": ["NotFoundError", 404, "model"],
        "key": ["AuthenticationError", 401, "invalid_api_key"],
    }


def test_langchains_chat_model(limited: RunningServer, key: str) -> None:
    install_clients("python")
    python = CLIENTS / "python" / "bin" / "python"
    told = told_by([str(python), str(SCRIPTS / "langchain_chat.py")], limited, key, CLIENTS)
    assert "서울" in told["whole"]
    assert {told["streamed"], *told["batch"]} == {told["whole"]}
    assert told["usage"]["total_tokens"] > told["usage"]["output_tokens"] > 0
    assert [status for _, status in told["refusals"].values()] == [400, 401]


def test_curl(limited: RunningServer, key: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    body = json.dumps({"messages": MESSAGES, "stream": True, "temperature": 0})
    head = ("-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {key}")
    command = ["curl", "-sS", "--fail-with-body", f"{limited.url}/v1/chat/completions", *head, "-d", body]
    assert "서울" in text_of(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    large = [*command[:-1], json.dumps({"messages": [{"role": "user", "content": "가" * 1_000_000}]})]
    refused = subprocess.run(
        [*large[:-1], "@-"], check=False, input=large[-1], capture_output=True, text=True, timeout=60
    )
    assert "1048576 bytes" in refused.stdout
