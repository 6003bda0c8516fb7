from pathlib import Path

import pytest

from malmoi.chat import Message
from tests.support.exports import write_jsonl
from train.evaluation.chat import chat_of, is_korean, read_prompts
from train.generation import Answer


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_prompts_are_what_stands_before_the_first_answer_each_once(tmp_path: Path) -> None:
    rows = [
        [
            turn("system", "짧게."),
            turn("user", "수도는?"),
            turn("assistant", "서울"),
            turn("user", "왜?"),
            turn("assistant", "음"),
        ],
        [turn("user", "하나"), turn("assistant", "둘")],
        [turn("user", "하나"), turn("assistant", "셋")],
    ]
    file = write_jsonl(tmp_path / "rows.jsonl", [{"messages": row} for row in rows])
    asked = [(Message("system", "짧게."), Message("user", "수도는?")), (Message("user", "하나"),)]
    assert read_prompts([str(file)], None) == asked
    assert read_prompts([str(file)], 1) == asked[:1]


def test_numbers_of_answers_by_hand() -> None:
    prompts = [(Message("user", text),) for text in ("수도는?", "이름은?", "Who are you?")]
    answers = [
        Answer(text="서울입니다.", num_tokens=3, has_ended=True),
        Answer(text="name " * 20, num_tokens=40, has_ended=False),
        Answer(text="I am.", num_tokens=2, has_ended=True),
    ]
    found = chat_of(prompts, answers, lambda text: [ord(letter) for letter in text])
    assert found.num_prompts == 3
    assert found.eos_rate == 2 / 3
    assert found.loop_rate == 1 / 3
    assert found.korean_share == 1 / 2, "the English question is not asked for Korean"
    assert found.mean_characters == pytest.approx((6 + 100 + 5) / 3)
    assert found.mean_tokens == 15
    assert chat_of(prompts[2:], answers[2:], lambda text: []).korean_share is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("서울", True),
        ("Seoul은 서울입니다", True),
        ("ㅋㅋㅋ", True),
        ("Seoul 서울", False),
        ("123!", False),
        ("", False),
    ],
)
def test_a_text_is_korean_by_most_of_its_letters(text: str, expected: bool) -> None:
    assert is_korean(text) is expected
