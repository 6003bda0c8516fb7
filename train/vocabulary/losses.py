"""The loss of a grown model before any training, for each way to begin the new rows."""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from malmoi import measure
from train.recipe import Initialiser
from train.vocabulary.growth import Grown, RowMaker
from train.vocabulary.report import Loss

VARIANTS: Final[tuple[tuple[Initialiser, Initialiser], ...]] = (
    ("subword-mean", "first-subword"),
    ("subword-mean", "subword-mean"),
    ("similar", "similar"),
    ("mean", "mean"),
    ("random", "random"),
)
"""Input and output rows: EEVE's, its mean for both, tedllm's, and two straw men to be better than."""
TOKENS_AT_ONCE: Final = 512
ROWS_AT_ONCE: Final = 16
DIGITS: Final = 4
"""Kept of a loss: the order in which threads add up shows in the last of them."""


def losses_before_training(grown: Grown, rows: RowMaker, texts: Sequence[str]) -> list[Loss]:
    """Bits per byte of `texts` under each variant; of tied models the input rows serve for both."""
    model = AutoModelForCausalLM.from_pretrained(grown.request.base, local_files_only=True).eval()
    inputs, outputs = (table.weight.detach()[: grown.base.num_ids].clone() for table in _tables(model))
    model.resize_token_embeddings(grown.tokenizer.num_ids, mean_resizing=False)
    is_tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    found = []
    for of_input, of_output in VARIANTS:
        if is_tied and of_output != of_input and of_output != "first-subword":
            continue
        table, head = (embedding.weight for embedding in _tables(model))
        with torch.no_grad():
            if not is_tied:
                head[grown.base.num_ids :] = rows.make(of_output, outputs).to(head.dtype)
            table[grown.base.num_ids :] = rows.make(of_input, inputs).to(table.dtype)
        bits = round(bits_per_byte(model, grown.tokenizer.tokenizer, texts), DIGITS)
        found.append(
            Loss(input_rows=of_input, output_rows=of_input if is_tied else of_output, bits_per_byte=bits)
        )
    return found


def _tables(model: PreTrainedModel):  # type: ignore[no-untyped-def]
    return model.get_input_embeddings(), model.get_output_embeddings()


def bits_per_byte(model: PreTrainedModel, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Bits per UTF-8 byte of the texts, each begun afresh after bos; at most TOKENS_AT_ONCE of each."""
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    rows = sorted((found.ids[:TOKENS_AT_ONCE] for found in encoded if found.ids), key=len)
    start = [] if model.config.bos_token_id is None else [model.config.bos_token_id]
    nats, num_bytes = 0.0, 0
    for first in range(0, len(rows), ROWS_AT_ONCE):
        batch = [start + ids for ids in rows[first : first + ROWS_AT_ONCE]]
        nats += sum(_nats(model, batch))
    for ids in rows:
        counted = ids if start else ids[1:]  # without bos the first token is given
        num_bytes += len(tokenizer.decode(counted, skip_special_tokens=False).encode())
    return measure.bits_per_byte(nats, num_bytes)


def _nats(model: PreTrainedModel, batch: list[list[int]]) -> Iterator[float]:
    """The summed loss of each row but its first token; the logits of one row at a time are in memory."""
    width = max(map(len, batch))
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids in batch])  # (rows, tokens)
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
    with torch.inference_mode():
        hidden = model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        for ids, states in zip(batch, hidden, strict=True):
            logits = model.get_output_embeddings()(states[: len(ids) - 1]).float()  # (tokens - 1, vocab)
            yield torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
