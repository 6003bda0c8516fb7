"""Losses of two models against a recomputation that reads a growing prefix, one token at a time, in fp64."""

import resource

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from malmoi.errors import CheckpointError
from quant import apart
from quant.fidelity import TOKEN_KINDS
from quant.losses import compared, summary, token_losses
from quant.passages import Passage
from tests.support.checkpoints import create_tiny_checkpoint

WIDTH = 16
LENGTHS = (2, WIDTH - 1, WIDTH, WIDTH + 1, WIDTH + WIDTH // 2, WIDTH + WIDTH // 2 + 1, 3 * WIDTH + 5)
"""On both sides of every boundary."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Two whose predictions are far from flat, and not very far from each other."""
    folder = tmp_path_factory.mktemp("models") / "parent"
    create_tiny_checkpoint(folder, dtype="float32", initializer_range=0.3)
    parent, export = (AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in export.parameters():
            parameter += 0.03 * torch.randn_like(parameter)
    return parent, export


def passages() -> list[Passage]:
    generator = np.random.default_rng(0)
    return [
        Passage(ids=generator.integers(0, 384, length).tolist(), num_bytes=3 * length) for length in LENGTHS
    ]


def by_hand(parent: PreTrainedModel, export: PreTrainedModel, passage: Passage) -> list[tuple[float, ...]]:
    """For each predicted token: id, both losses, KL, agreement."""
    found: list[tuple[float, ...]] = []
    for place in range(1, len(passage.ids)):
        begin = 0
        while place - begin >= WIDTH:
            begin += WIDTH // 2
        context = torch.tensor([passage.ids[begin:place]])
        with torch.no_grad():
            p, q = (model(context).logits[0, -1].double().softmax(0) for model in (parent, export))
        token = passage.ids[place]
        kl = sum(float(a) * (np.log(float(a)) - np.log(float(b))) for a, b in zip(p, q, strict=True))
        agrees = float(int(p.argmax()) == int(q.argmax()))
        found.append((token, -np.log(float(p[token])), -np.log(float(q[token])), kl, agrees))
    return found


def test_every_token_loses_what_a_prefix_read_by_hand_does(
    models: tuple[PreTrainedModel, PreTrainedModel],
) -> None:
    expected = np.array(sorted(row for passage in passages() for row in by_hand(*models, passage)))
    losses = token_losses(*models, passages(), width=WIDTH)
    rows = zip(losses.ids, losses.parent, losses.export, losses.kl, losses.agrees, strict=True)
    found = np.array(sorted(tuple(map(float, row)) for row in rows))
    assert found.shape == expected.shape == (sum(LENGTHS) - len(LENGTHS), 5)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
    assert 0.02 < expected[:, 3].mean() < 5, "a comparison of models that differ"
    assert 0 < expected[:, 4].mean() < 1


def test_a_model_is_no_distance_from_itself(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    losses = token_losses(models[0], models[0], passages(), width=WIDTH)
    assert losses.kl.max() == losses.kl.min() == 0
    assert losses.agrees.all()
    assert (losses.parent == losses.export).all()


def test_kl_is_of_the_parent_to_the_export() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2; the other way it would be 0.1438."""
    p, q = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    of_parent, of_export, kl, agrees = compared(p, q, torch.tensor([1]))
    assert kl.item() == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5), rel=1e-5)
    assert of_parent.item() == pytest.approx(np.log(4), rel=1e-5)
    assert of_export.item() == pytest.approx(np.log(2), rel=1e-5)
    assert agrees.item()


def test_summary_splits_by_the_predicted_token(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    losses = token_losses(*models, passages(), width=WIDTH)
    kinds = np.zeros(384, np.int8)
    kinds[300:] = TOKEN_KINDS.index("new")
    found = summary(losses, kinds, num_bytes=1000)
    old, new = found.by_token["old"], found.by_token["new"]
    assert found.by_token["byte"] is None
    assert old is not None and new is not None
    of_new = [place for place, token in enumerate(losses.ids) if token >= 300]
    assert new.num_tokens == len(of_new)
    assert new.kl_mean == pytest.approx(sum(losses.kl[place] for place in of_new) / len(of_new))
    assert new.export_bits_per_token == pytest.approx(np.log2(np.e) * losses.export[of_new].mean())
    assert found.num_tokens == old.num_tokens + new.num_tokens
    total = losses.parent.sum()
    assert found.parent.bits_per_byte == pytest.approx(total / np.log(2) / 1000)
    assert found.parent.perplexity == pytest.approx(np.exp(total / found.num_tokens))
    assert sorted(losses.kl)[-len(losses.kl) // 100 - 1] <= found.kl_p99 <= losses.kl.max()


def test_a_model_that_predicts_no_numbers_is_refused(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    broken = AutoModelForCausalLM.from_pretrained(models[0].name_or_path)
    with torch.no_grad():
        broken.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="predictions that are numbers"):
        token_losses(models[0], broken, passages(), width=WIDTH)


@pytest.mark.slow
def test_memory_is_what_a_batch_takes_however_many_there_are() -> None:
    """Long after short: none fits where the one before was freed, if anything small is kept between them."""
    assert apart.call("tests.quant.test_losses:grown_bytes", environment={}) < 1 << 30  # else 3 GiB and more


def grown_bytes() -> int:
    """Most memory that it takes to read texts with a model and itself, beyond the model. Of this process."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=1, vocab_size=24_576)).bfloat16()
    generator = np.random.default_rng(0)
    lengths = range(64, 512, 8)
    texts = [Passage(ids=generator.integers(0, 24_576, length).tolist(), num_bytes=1) for length in lengths]
    before = psutil.Process().memory_info().rss
    token_losses(model, model, texts, width=512)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
