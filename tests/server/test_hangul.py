"""Streams of Korean: whole characters, no empty pieces, nothing of the prompt; the same text as unstreamed."""

import asyncio
import unicodedata
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from vllm.v1.engine import FinishReason

from server.hangul import FIRST_CONSONANTS, REPLACEMENT, primed_stream
from tests.server.conftest import Served, ServeScript
from tests.server.test_gate import ANSWER, answering, client_of, step, stream_events
from tests.support.scripted_engine import Script

COMPLETIONS = "/v1/completions"
RARE = "똠방각하 뷁 🙂"
"""Every character of it is three or four byte tokens here."""


def backend(served: Served) -> Tokenizer:
    tokenizer: Tokenizer = served.engine.renderer.get_tokenizer()._tokenizer
    return tokenizer


def ids(served: Served, text: str) -> list[int]:
    encoded: list[int] = backend(served).encode(text, add_special_tokens=False).ids
    return encoded


def byte_tokens(served: Served, raw: bytes) -> list[int]:
    found = [backend(served).token_to_id(f"<0x{byte:02X}>") for byte in raw]
    assert None not in found
    return found  # type: ignore[return-value]


async def complete(client: httpx.AsyncClient, **request: object) -> tuple[str, list[str]]:
    """The text in one piece, and the pieces of the streamed text."""
    body = {"model": "tiny", "prompt": "서울", "max_tokens": 100} | request
    whole = (await client.post(COMPLETIONS, json=body)).json()["choices"][0]["text"]
    streamed = await client.post(COMPLETIONS, json=body | {"stream": True})
    *pieces, last = [event["choices"][0] for event in stream_events(streamed.text) if event["choices"]]  # type: ignore[index]
    assert last["finish_reason"] is not None
    assert all(piece["finish_reason"] is None for piece in pieces)
    return whole, [piece["text"] for piece in pieces] + ([last["text"]] if last["text"] else [])


def scripted(served: Served, tokens: Sequence[int], *, cut: bool = False) -> None:
    reason = FinishReason.LENGTH if cut else FinishReason.STOP
    served.engine.core.script = Script(token_ids=tokens, finish_reason=reason, before_token=step)


def text_of(served: Served, tokens: Sequence[int]) -> str:
    """Byte by byte, without what is no whole character at the end."""
    pieces = [backend(served).id_to_token(token) or "" for token in tokens]
    raw = [bytes([int(p[3:5], 16)]) if p.startswith("<0x") else p.replace("▁", " ").encode() for p in pieces]
    return b"".join(raw).decode(errors="ignore")


def with_eos(served: Served, tokens: Sequence[int]) -> list[int]:
    return [*tokens, served.engine.renderer.get_tokenizer().eos_token_id]


def test_no_piece_is_empty_and_every_token_arrives(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "")
        scripted(served, with_eos(served, ids(served, RARE)))
        async with client_of(served) as client:
            whole, pieces = await complete(client)
            body = {"model": "tiny", "prompt": "서울", "stream": True, "return_token_ids": True, "n": 2}
            streamed = await client.post(COMPLETIONS, json=body)
            request = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "stream": True}
            chat = stream_events((await client.post("/v1/chat/completions", json=request)).text)
        assert pieces == list(RARE)
        assert whole == RARE
        choices = [event["choices"][0] for event in stream_events(streamed.text)]  # type: ignore[index]
        for index in (0, 1):
            mine = [choice for choice in choices if choice["index"] == index]
            assert [
                token for choice in mine for token in choice["token_ids"]
            ] == served.engine.core.script.token_ids
            assert "".join(choice["text"] for choice in mine) == RARE
        role, *deltas, _ = [event["choices"][0]["delta"] for event in chat]  # type: ignore[index]
        assert role["role"] == "assistant"
        assert all(delta["content"] for delta in deltas)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "stray", [b"\xea", b"\xea\xb0", b"\x80", b"\xf0\x9f\x99", b"\xff\xfe", b"\xed\xa0\x80"]
)
@pytest.mark.parametrize("cut", [False, True])
def test_bytes_that_are_no_character_are_left_out(serve_script: ServeScript, stray: bytes, cut: bool) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "")
        tokens = [
            *ids(served, "서울"),
            *byte_tokens(served, stray),
            *ids(served, "수도"),
            *byte_tokens(served, stray),
        ]
        scripted(served, tokens if cut else with_eos(served, tokens), cut=cut)
        async with client_of(served) as client:
            whole, pieces = await complete(client)
        assert whole == "".join(pieces) == "서울수도"
        assert all(pieces)

    asyncio.run(scenario())


def test_prompt_that_ends_inside_a_character_is_not_repeated(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "")
        prompt = ids(served, f"대한민국의 수도는 {RARE}똠")
        answer = ids(served, "각하 서울")
        async with client_of(served) as client:
            for missing in (1, 2):
                begun, rest = prompt[:-missing], prompt[-missing:]
                scripted(served, with_eos(served, [*rest, *answer]))
                whole, pieces = await complete(client, prompt=begun, stop=["수도", "하 서울"])
                assert whole == "".join(pieces) == "똠각", "vLLM would stop at the prompt's 수도, and repeat it"
                whole, pieces = await complete(client, prompt=begun)
                assert whole == "".join(pieces) == "똠각하 서울"
                assert pieces[0] == "똠"
            scripted(served, with_eos(served, answer))
            whole, pieces = await complete(client, prompt=prompt)
            assert whole == "".join(pieces) == "각하 서울"

    asyncio.run(scenario())


@pytest.mark.parametrize("text", [ANSWER, RARE])
def test_length_limit_leaves_whole_characters(serve_script: ServeScript, text: str) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "")
        tokens = ids(served, text)
        async with client_of(served) as client:
            for length in range(1, len(tokens) + 1):
                scripted(served, tokens[:length], cut=True)
                whole, pieces = await complete(client)
                assert whole == "".join(pieces)
                assert whole == text_of(served, tokens[:length])
                assert all(pieces)

    asyncio.run(scenario())


def test_syllables_of_conjoining_jamo_come_whole(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, "")
        text = unicodedata.normalize("NFD", "한글 값")
        tokens = ids(served, text)
        async with client_of(served) as client:
            scripted(served, with_eos(served, tokens))
            whole, pieces = await complete(client)
            assert whole == "".join(pieces) == text
            assert not any(piece[-1] in FIRST_CONSONANTS for piece in pieces)
            begun = ids(served, text[: text.rindex(unicodedata.normalize("NFD", "값")) + 1])
            scripted(served, begun, cut=True)
            whole, pieces = await complete(client)
            assert whole == "".join(pieces) == unicodedata.normalize("NFD", "한글 ")

    asyncio.run(scenario())


def test_stop_string_ends_at_whole_characters_and_nothing_is_held_back(serve_script: ServeScript) -> None:
    async def scenario() -> None:
        served = await answering(serve_script, f"하나 {RARE} 둘")
        async with client_of(served) as client:
            whole, pieces = await complete(client, stop=["뷁"])
            assert whole == "".join(pieces) == "하나 똠방각하 "
            assert all(pieces)
            whole, pieces = await complete(client, stop=["없는 문자열"])
            assert whole == "".join(pieces) == f"하나 {RARE} 둘"
            assert all(pieces)

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: object) -> Tokenizer:
    return Tokenizer.from_file(f"{tiny_checkpoint}/tokenizer.json")


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("가서똠🙂a é"), min_size=1, max_size=6), st.integers(0, 20))
def test_primed_stream_continues_what_the_prompt_began(tokenizer: Tokenizer, text: str, cut: int) -> None:
    """Against the decoding of everything at once."""
    tokens = tokenizer.encode(text).ids
    cut = min(cut, len(tokens))
    prompt, answer = tokens[:cut], tokens[cut:]
    stream = primed_stream(tokenizer, prompt, skip_special_tokens=True)
    stream = stream or DecodeStream(ids=prompt, skip_special_tokens=True)
    pieces = [stream.step(tokenizer, token) or "" for token in answer]
    whole = next(length for length in range(cut, -1, -1) if not ends_inside(tokenizer, tokens[:length]))
    assert tokenizer.decode(tokens[:whole]) + "".join(pieces) == tokenizer.decode(tokens) == text


def ends_inside(tokenizer: Tokenizer, tokens: Sequence[int]) -> bool:
    decoded: str = tokenizer.decode(list(tokens))
    return decoded.endswith(REPLACEMENT)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9, 2000])
def test_prompt_of_nothing_but_stray_bytes_is_not_repeated_either(tokenizer: Tokenizer, length: int) -> None:
    prompt = [tokenizer.token_to_id("<0xEA>") or 0] * length
    stream = primed_stream(tokenizer, prompt, skip_special_tokens=True)
    assert stream is not None
    pieces = [stream.step(tokenizer, token) or "" for token in tokenizer.encode("서울").ids]
    assert "".join(pieces).replace(REPLACEMENT, "") == "서울"
