"""What a request may ask for: each bound is a 400 that says it, and never an error of the engine."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.bounds import Bounds
from server.checks import REFUSED_FIELDS, Checked, Rules, is_deeper
from server.refusal import Invalid
from tests.server.conftest import ServeScript
from tests.server.test_gate import ANSWER, CHAT, QUESTION, answering, chat, client_of
from tests.server.visitor import Visitor

COMPLETIONS = "/v1/completions"
BASE: dict[str, dict[str, object]] = {
    CHAT: {"model": "tiny", "messages": QUESTION},
    COMPLETIONS: {"model": "tiny", "prompt": "서울"},
}


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def properties(number: int) -> dict[str, object]:
    return {"type": "object", "properties": {f"name{index}": {"type": "string"} for index in range(number)}}


TOO_MUCH: list[tuple[str, dict[str, object], str]] = [
    (CHAT, {"n": 9}, "8"),
    (CHAT, {"n": "9"}, "integer"),
    (CHAT, {"n": 10**30}, "64 bits"),
    (CHAT, {"n": 0}, "from 1"),
    (CHAT, {"max_tokens": 513}, "512"),
    (CHAT, {"max_completion_tokens": 513}, "512"),
    (CHAT, {"min_tokens": 10**9}, "512"),
    (CHAT, {"max_tokens": -1}, "from 0"),
    (CHAT, {"max_tokens": 1.5}, "integer"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "20"),
    (CHAT, {"logprobs": True, "top_logprobs": -1}, "from 0"),
    (CHAT, {"prompt_logprobs": 21}, "20"),
    (COMPLETIONS, {"logprobs": 21}, "20"),
    (COMPLETIONS, {"logprobs": -1}, "from 0"),
    (CHAT, {"stop": ["x"] * 5}, "4"),
    (CHAT, {"stop": "x" * 257}, "256"),
    (CHAT, {"stop": ["x", "x" * 257]}, "256"),
    (CHAT, {"bad_words": ["x"] * 129}, "128"),
    (CHAT, {"stop_token_ids": [384]}, "383"),
    (CHAT, {"stop_token_ids": [-1]}, "383"),
    (CHAT, {"allowed_token_ids": [10**9]}, "383"),
    (CHAT, {"logit_bias": {"384": 1}}, "383"),
    (CHAT, {"logit_bias": {"x": 1}}, "token ids"),
    (CHAT, {"logit_bias": {str(number): 1 for number in range(1025)}}, "1024"),
    (CHAT, {"logprobs": True, "logprob_token_ids": [384]}, "383"),
    (CHAT, {"seed": 2**63}, "64 bits"),
    (CHAT, {"top_k": -(2**63) - 1}, "64 bits"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "128"),
    (CHAT, {"messages": QUESTION * 4097}, "4096"),
    (CHAT, {"metadata": nested(40)}, "32 deep"),
    (CHAT, {"structured_outputs": {"json": nested(300)}}, "32 deep"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": properties(3000)}}, "65536 bytes"),
    (CHAT, {"structured_outputs": {"regex": "a" * 70_000}}, "65536 bytes"),
    (CHAT, {"structured_outputs": {"grammar": "a" * 70_000}}, "65536 bytes"),
    (COMPLETIONS, {"prompt": ["가"] * 500}, "128"),
    (COMPLETIONS, {"prompt": [[1]] * 500}, "128"),
    (COMPLETIONS, {"prompt": "가" * 3000}, "512"),
    (COMPLETIONS, {"prompt": [5] * 600}, "512"),
    (CHAT, {"messages": [{"role": "user", "content": "가" * 3000}]}, "512"),
]


def test_bounds_are_400s_that_say_them(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, ANSWER)
        async with client_of(served) as client:
            for path, fields, said in TOO_MUCH:
                answer = await client.post(path, json=BASE[path] | fields)
                assert answer.status_code == 400, (fields, answer.text)
                assert said in answer.json()["error"]["message"], fields
            for path, body in BASE.items():
                assert (await client.post(path, json=body)).status_code == 200
        assert len(served.engine.core.requests) == 2
        assert served.gate.slots.num_running == 0

    asyncio.run(scenario())


WITHIN: list[tuple[str, dict[str, object]]] = [
    (CHAT, {"n": 8, "max_tokens": 500, "logprobs": True, "top_logprobs": 20}),
    (CHAT, {"n": None, "max_tokens": None, "stop": None, "tools": None, "logit_bias": None}),
    (CHAT, {"max_tokens": 16.0, "stop": ["x" * 256] * 4, "logit_bias": {"5": 1, "383": -1}}),
    (CHAT, {"chat_template_kwargs": {}, "documents": None, "use_beam_search": False, "priority": 0}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "서울"}]}]}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": properties(5)}}],
            "tool_choice": "none"}),
    (COMPLETIONS, {"prompt": ["서울", "부산"], "n": 2, "logprobs": 5}),
    (COMPLETIONS, {"prompt": [[5, 6], [7]], "echo": True, "logprobs": 0}),
]  # fmt: skip


def test_what_is_within_bounds_is_answered(serve_script: ServeScript) -> None:
    """logprobs are asked for where the script can do without: it has none."""

    async def scenario() -> None:
        served = await answering(serve_script, ANSWER)
        async with client_of(served) as client:
            for path, fields in WITHIN:
                fields = {name: value for name, value in fields.items() if "logprobs" not in name}
                answer = await client.post(path, json=BASE[path] | fields)
                assert answer.status_code == 200, (fields, answer.text)

    asyncio.run(scenario())
    rules = Rules(bounds=Bounds(), max_model_len=512, vocab_size=384, max_sequences=256)
    for path, fields in WITHIN:
        assert rules.check(path, json.dumps(BASE[path] | fields).encode()).num_sequences >= 1


@pytest.mark.parametrize("field", REFUSED_FIELDS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize"])
def test_fields_that_had_advisories_are_refused(field: str, path: str) -> None:
    rules = Rules(bounds=Bounds(), max_model_len=512, vocab_size=384, max_sequences=256)
    body = {"messages": QUESTION, field: {"a": "{{ x.__class__ }}"}}
    with pytest.raises(Invalid, match=field) as refused:
        rules.check(path, json.dumps(body).encode())
    assert refused.value.param == field


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"image_url": "http://169.254.169.254/"},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
        {"type": "image_embeds", "image_embeds": "gASV"},
        {"type": ["text"], "text": "x"},
    ],
)
@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_what_is_not_text_is_refused_unread(part: dict[str, object], role: str) -> None:
    rules = Rules(bounds=Bounds(), max_model_len=512, vocab_size=384, max_sequences=256)
    body = {"messages": [{"role": role, "content": [{"type": "text", "text": "x"}, part]}]}
    with pytest.raises(Invalid, match="Messages are text"):
        rules.check(CHAT, json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        '{"a":1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/tokenize", "/detokenize"])
def test_what_is_no_json_object_is_400(serve_script: ServeScript, body: bytes, path: str) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, ANSWER)
        visitor = Visitor(served.gate, path, parts=[body])
        await visitor.served
        assert visitor.status == 400
        assert visitor.json()["error"]["type"] == "BadRequestError"

    asyncio.run(scenario())


def test_unknown_fields_are_named_in_a_header_or_refused(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, ANSWER)
        unknown = {"guided_json": {}, "temprature": 1, "줄\r\nx: y": 1}
        async with client_of(served) as client:
            for stream in (True, False):
                answer = await chat(client, stream=stream, **unknown)
                assert answer.status_code == 200
                assert answer.headers["x-malmoi-warning"] == (
                    r"unknown fields were ignored: guided_json, temprature, \uc904??x: y"
                )
            assert "x-malmoi-warning" not in (await chat(client, temperature=1, user="u")).headers
        strict = await serve_script(served.engine.core.script, Bounds(strict=True))
        async with client_of(strict) as client:
            refused = await chat(client, **unknown)
            assert refused.status_code == 400
            assert "guided_json" in refused.json()["error"]["message"]
            assert (await chat(client, temperature=1)).status_code == 200

    asyncio.run(scenario())


def test_clients_own_fields_are_known(serve_script: ServeScript) -> None:
    """What the OpenAI clients send of their own accord must pass --strict."""

    async def scenario() -> None:
        served = await answering(serve_script, ANSWER)
        rules = served.gate._rules
        fields = (
            "temperature",
            "top_p",
            "stream",
            "stream_options",
            "user",
            "seed",
            "response_format",
            "tool_choice",
        )
        for path in BASE:
            assert {*fields} - {"tool_choice"} <= rules.known_fields[path]
        assert "tool_choice" in rules.known_fields[CHAT]

    asyncio.run(scenario())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.integers(1, 6))
def test_depth_is_counted_as_by_recursion(value: object, max_depth: int) -> None:
    assert is_deeper(value, max_depth) == (depth_of(value) > max_depth)


FIELDS = st.dictionaries(
    st.sampled_from(
        ["n", "max_tokens", "stop", "logit_bias", "prompt", "messages", "tools", "logprobs", "model", "x"]
    ),
    JSON,
    max_size=6,
)


@settings(max_examples=300)
@given(FIELDS)
def test_whatever_is_asked_is_checked_or_refused(document: dict[str, object]) -> None:
    rules = Rules(bounds=Bounds(), max_model_len=512, vocab_size=384, max_sequences=16)
    try:
        checked = rules.check(CHAT, json.dumps(document).encode())
    except Invalid as refused:
        assert str(refused)
    else:
        assert isinstance(checked, Checked)
        assert 1 <= checked.num_sequences <= 16
        assert checked.num_tokens >= 0
