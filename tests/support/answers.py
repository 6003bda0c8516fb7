"""The second derivation of a served answer: transformers, greedy."""

from pathlib import Path


def answer_of_transformers(directory: Path, question: str) -> str:
    """The first 64 tokens at most of its greedy answer to one question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, device_map="cpu")
    encoded = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    generated = model.generate(**encoded, max_new_tokens=64, do_sample=False)
    answer: str = tokenizer.decode(generated[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return answer
