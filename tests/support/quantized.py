"""Quantized copies of a small checkpoint, made by the libraries that users quantize with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
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
    """GPTQ as vLLM serves it: 4 bits, symmetric, no activation order; by GPTQModel.

    In a process of its own: GPTQModel leaves temporary directories and threads behind.
    """
    command = [sys.executable, "-m", __name__, str(checkpoint.absolute()), str(out.absolute())]
    environment = os.environ | {"GPTQMODEL_CPU_WORKERS": "2", "PYTHONPATH": str(ROOT)}
    # It writes logs/ where it is started.
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=out.parent)
    return _with_tokenizer(checkpoint, out)


def quantize_gptq(checkpoint: Path, out: Path) -> None:
    """What the process of `export_gptq` does; GPTQMODEL_CPU_WORKERS=2, or its pool fails on two cores."""
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=4, group_size=128, desc_act=False, sym=True, device="cpu", offload_to_disk=False
    )
    model = GPTQModel.load(str(checkpoint), config)
    model.quantize(_calibration(checkpoint), batch_size=4)
    model.save(str(out))


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


if __name__ == "__main__":
    quantize_gptq(Path(sys.argv[1]), Path(sys.argv[2]))
