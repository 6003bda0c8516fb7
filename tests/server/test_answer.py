"""What is counted and timed of an answer, from the bytes of its parts alone."""

import json
from collections.abc import Iterable

from server.answer import AnswerReader


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
