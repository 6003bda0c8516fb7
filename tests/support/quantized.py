"""Quantized copies of a small checkpoint, made by the libraries that users quantize with."""

import os
import shutil
from pathlib import Path

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def export_bnb(checkpoint: Path, out: Path) -> Path:
    """bitsandbytes nf4 with double quantization, saved by transformers."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, quantization_config=config, dtype=torch.bfloat16, device_map="cpu"
    )
    model.save_pretrained(out)
    return _with_tokenizer(checkpoint, out)


def export_gptq(checkpoint: Path, out: Path) -> Path:
    """GPTQ as vLLM serves it: 4 bits, symmetric, no activation order; by GPTQModel."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its pool fails on two cores otherwise
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=4, group_size=128, desc_act=False, sym=True, device="cpu", offload_to_disk=False
    )
    model = GPTQModel.load(str(checkpoint), config)
    model.quantize(_calibration(checkpoint), batch_size=4)
    model.save(str(out))
    return _with_tokenizer(checkpoint, out)


def _calibration(checkpoint: Path) -> list[dict[str, list[int]]]:
    from transformers import AutoTokenizer

    from train.demo.conversations import conversations

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    turns = [[message.as_dict() for message in conversation] for conversation in conversations(64, seed=1)]
    rows = tokenizer.apply_chat_template(turns, return_dict=True)
    return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows["input_ids"]]


def _with_tokenizer(checkpoint: Path, out: Path) -> Path:
    for name in TOKENIZER_FILES:
        shutil.copy(checkpoint / name, out)
    return out
