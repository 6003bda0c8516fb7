"""Asks a server every question twice, streamed and not, and counts answers that differ between the two.

    python docs/examples/ask_both_ways.py http://127.0.0.1:8000 build/real-text PROMPTS.jsonl.gz

The checkpoint's directory gives the model's name and the tokenizer that usage is checked against; of the
prompts (rows {"instruction"}) every `--every`th is asked.
"""

import gzip
import json
from pathlib import Path

import tyro
from openai import OpenAI
from transformers import AutoTokenizer

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def ask(url: str, checkpoint: Path, prompts: Path, /, *, every: int = 557, max_tokens: int = 100) -> None:
    """Ask, and print the answers and how many of them are not the same both ways."""
    client = OpenAI(base_url=f"{url}/v1", api_key="unused")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with gzip.open(prompts, "rt", encoding="utf-8") as lines:
        questions = [json.loads(line)["instruction"] for line in lines][::every]
    num_wrong = 0
    for question in questions:
        turns = [{"role": "user", "content": question}]
        request = {"model": checkpoint.name, "messages": turns, "temperature": 0, "max_tokens": max_tokens}
        whole = client.chat.completions.create(**request)
        streamed, usage = "", None
        for chunk in client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            streamed += "".join(choice.delta.content or "" for choice in chunk.choices)
        text = whole.choices[0].message.content
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        answer = tokenizer.encode(text, add_special_tokens=False)
        counts = (len(prompt), len(answer) + (whole.choices[0].finish_reason == "stop"))  # eos is counted
        reported = [(of.prompt_tokens, of.completion_tokens) for of in (whole.usage, usage)]
        is_right = streamed == text and REPLACEMENT not in text and reported == [counts, counts]
        num_wrong += not is_right
        print("ok   " if is_right else "WRONG", question, "->", text)
    print(f"{num_wrong} of {len(questions)} wrong")


if __name__ == "__main__":
    tyro.cli(ask)
