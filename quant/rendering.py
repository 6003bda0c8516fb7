"""How a checkpoint's own tokenizer and template render a conversation: what its lock is taken from."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError

from malmoi.chat import Message
from malmoi.provenance import Rendering


def render(directory: Path, messages: Sequence[Message]) -> Rendering:
    """The conversation by the tokenizer saved in `directory`, with the generation prompt.

    Without its system turn where the template refuses one, as Gemma's does.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    turns = [message.as_dict() for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    except TemplateError:
        turns = [turn for turn in turns if turn["role"] != "system"]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
    return Rendering(text=text, token_ids=encoded["input_ids"])
