from pathlib import Path

import torch

from malmoi.chat import Message
from quant.answers import answer_rates, prompts_of
from quant.loading import load_model, load_tokenizer
from tests.support.exports import create_grown_chat

PROMPTS = [(Message("user", "수도는?"),), (Message("user", "오늘 날씨를 길게 설명해 주세요."),)]


def test_rates_of_a_model_that_says_one_token_for_ever(tmp_path: Path) -> None:
    """All logits are equal, so the greedy token is the first."""
    folder = create_grown_chat(tmp_path / "chat")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    endless = answer_rates(model, tokenizer, PROMPTS, max_new_tokens=20)
    assert (endless.eos_rate, endless.loop_rate) == (0, 1)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 0]
    ended = answer_rates(model, tokenizer, PROMPTS, max_new_tokens=20)
    assert (ended.eos_rate, ended.loop_rate) == (1, 0)


def test_prompts_are_what_stands_before_the_first_answer() -> None:
    system, user = Message("system", "짧게."), Message("user", "수도는?")
    dialogue = (system, user, Message("assistant", "서울"), Message("user", "왜?"), Message("assistant", "음"))
    assert prompts_of(["하나", dialogue, (system,)]) == [(Message("user", "하나"),), (system, user)]
