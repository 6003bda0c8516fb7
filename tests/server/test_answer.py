"""What is counted and timed of an answer, from the bytes of its parts alone."""

import json
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from server.answer import AnswerReader
from server.metrics import PARTS_AT_ONCE, Measurement, Metrics

OK = {"route": "chat", "outcome": "ok"}


def event(*choices: dict[str, object]) -> bytes:
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, "usage": None}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def text(content: str, index: int = 0) -> dict[str, object]:
    return {"index": index, "delta": {"content": content}, "finish_reason": None}


ROLE = event({"index": 0, "delta": {"role": "assistant", "content": ""}})
END = b"data: [DONE]\n\n"


def read_stream(parts: Iterable[bytes]) -> AnswerReader:
    """The reader, after it was fed a part each second."""
    reader = AnswerReader()
    reader.is_stream = True
    for second, part in enumerate(parts):
        reader.feed(part, float(second))
    reader.close()
    return reader


def test_events_may_be_cut_anywhere() -> None:
    body = ROLE + event(text("대한")) + event(text("민국 🙂")) + END
    for cut in range(len(body) + 1):
        reader = read_stream([body[:cut], body[cut:]])
        assert reader.num_characters == len("대한민국 🙂")
        assert len(reader.text_times) == 2
        assert not reader.has_error


def test_an_event_counts_when_its_last_byte_is_written() -> None:
    whole = event(text("네"))
    reader = read_stream([whole[:-1], whole[-1:] + event(text("아니요"))[:9], event(text("아니요"))[9:], END])
    assert reader.text_times == [(0, 1.0), (0, 2.0)]


def test_several_events_in_a_part_are_written_together() -> None:
    reader = read_stream([ROLE, event(text("가")) + event(text("나", 1)) + event(text("다")), END])
    assert reader.num_characters == 3
    assert reader.text_times == [(0, 1.0), (1, 1.0), (0, 1.0)]


def test_reasoning_and_tool_calls_are_text_of_the_model() -> None:
    call = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "날씨", "arguments": ""}}
    arguments = {"index": 0, "function": {"arguments": '{"곳":"서울"}'}}
    reader = read_stream(
        [
            event({"index": 0, "delta": {"reasoning": "음"}}),
            event({"index": 0, "delta": {"tool_calls": [call]}}),
            event({"index": 0, "delta": {"tool_calls": [arguments]}}),
        ]
    )
    assert reader.num_characters == len("음") + len('{"곳":"서울"}')
    assert reader.text_times == [(0, 0.0), (0, 2.0)]


def test_whole_answers_count_all_choices_and_no_times() -> None:
    choices = [{"index": 0, "message": {"content": "서울"}}, {"index": 1, "text": "부산시"}]
    body = json.dumps({"choices": choices}, ensure_ascii=False).encode()
    for cut in range(len(body)):
        reader = AnswerReader()
        reader.feed(body[:cut], 0.0)
        reader.feed(body[cut:], 1.0)
        reader.close()
        assert (reader.num_characters, reader.text_times) == (5, [])


def test_error_inside_a_stream_is_seen() -> None:
    assert read_stream([ROLE, b'data: {"error":{"message":"x"}}\n\n', END]).has_error


def test_what_is_no_answer_counts_nothing() -> None:
    for body in (b"data: {broken\n\n", b": keep-alive\n\n", b"data: [1]\n\n", b'data: {"choices":[]}\n\n'):
        reader = read_stream([body])
        assert (reader.num_characters, reader.text_times) == (0, [])


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def measured(registry: CollectorRegistry, route: str, seconds: Iterator[int]) -> Measurement:
    """A streamed request's measurement, whose clock ticks through `seconds`."""
    measurement = Measurement(
        metrics=Metrics(registry), route=route, received_at=0.0, clock=lambda: float(next(seconds))
    )
    measurement.reader.is_stream = True
    return measurement


def test_answer_of_more_parts_than_are_kept(registry: CollectorRegistry) -> None:
    num_parts = 2 * PARTS_AT_ONCE + 3
    measurement = measured(registry, "chat", iter(range(1, num_parts + 2)))
    for _ in range(num_parts):
        measurement.wrote(event(text("가나")))
    measurement.finish("ok")
    assert registry.get_sample_value("malmoi_characters_total", OK) == 2 * num_parts
    assert registry.get_sample_value("malmoi_time_to_first_token_seconds_sum", OK) == 1
    assert registry.get_sample_value("malmoi_inter_token_latency_seconds_count", OK) == num_parts - 1
    assert registry.get_sample_value("malmoi_inter_token_latency_seconds_sum", OK) == num_parts - 1
    assert registry.get_sample_value("malmoi_request_duration_seconds_sum", OK) == num_parts + 1


def test_gaps_are_those_of_each_choice(registry: CollectorRegistry) -> None:
    measurement = measured(registry, "chat", iter([1, 2, 11, 14, 30]))
    for index in (0, 1, 0, 1):
        measurement.wrote(event(text("가", index)))
    measurement.finish("ok")
    assert registry.get_sample_value("malmoi_time_to_first_token_seconds_sum", OK) == 1
    assert registry.get_sample_value("malmoi_inter_token_latency_seconds_count", OK) == 2
    assert registry.get_sample_value("malmoi_inter_token_latency_seconds_sum", OK) == (11 - 1) + (14 - 2)


def test_pieces_written_together_have_no_gap(registry: CollectorRegistry) -> None:
    measurement = measured(registry, "chat", iter([1, 3, 4]))
    measurement.wrote(event(text("가")) + event(text("나")))
    measurement.wrote(event(text("다")))
    measurement.finish("ok")
    assert registry.get_sample_value("malmoi_inter_token_latency_seconds_count", OK) == 1
    assert registry.get_sample_value("malmoi_inter_token_latency_seconds_sum", OK) == 2


@pytest.mark.parametrize(
    ("request_body", "echoes"),
    [
        (b'{"prompt":"x","echo":true}', True),
        (b'{"prompt":"x", "echo" :\n  true}', True),
        (b'{"prompt":"x","echo":1}', True),
        (b'{"prompt":"x","echo":"true"}', True),
        (b'{"prompt":"x","echo":false}', False),
        (b'{"prompt":"x","echo":null}', False),
        (json.dumps({"prompt": '{"echo":true}'}).encode(), False),
        (b'{"prompt":"echo","stop":["echo"]}', False),
    ],
)
@pytest.mark.parametrize("route", ["completions", "chat"])
def test_a_prompt_that_is_echoed_is_not_the_models_text(request_body: bytes, echoes: bool, route: str) -> None:
    for cut in range(len(request_body)):
        registry = CollectorRegistry()
        measurement = measured(registry, route, iter([1, 2]))
        measurement.received(request_body[:cut])
        measurement.received(request_body[cut:])
        measurement.wrote(event({"index": 0, "text": "프롬프트와 답"}))
        measurement.finish("ok")
        labels = {"route": route, "outcome": "ok"}
        counted = None if echoes else len("프롬프트와 답")
        assert registry.get_sample_value("malmoi_characters_total", labels) == counted
        timed = registry.get_sample_value("malmoi_seconds_per_character_count", labels)
        assert timed == (None if echoes else 1)
        assert registry.get_sample_value("malmoi_requests_total", labels) == 1
