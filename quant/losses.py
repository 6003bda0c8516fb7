"""Two models read the same texts: what each loses on every token, and how far their predictions are apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedModel

from malmoi import measure
from malmoi.errors import CheckpointError
from malmoi.windows import Window, windows
from quant.fidelity import TOKEN_KINDS, Prediction, TextFidelity, TokenGroup
from quant.passages import Passage

Numbers = NDArray[np.float64]

LOGITS_AT_ONCE: Final = 1 << 26
"""Of each model in memory at a time: 128 MiB of them in bf16."""
FLOATS_AT_ONCE: Final = 1 << 23
"""Of those, widened to fp32 at a time."""
NATS_PER_BIT: Final = float(np.log(2))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLosses:
    """A number for each predicted token; all arrays are (tokens,). Units: nats."""

    ids: NDArray[np.int64]
    parent: Numbers
    """Negative log likelihood."""
    export: Numbers
    kl: Numbers
    agrees: NDArray[np.bool_]
    """Whether both models find the same token likeliest."""

    def put(self, place: int, piece: Sequence[torch.Tensor]) -> None:
        """Writes ids, losses of both, KL and agreement of (n,) tokens each, from `place` on."""
        for field, numbers in zip(fields(self), piece, strict=True):
            getattr(self, field.name)[place : place + len(numbers)] = numbers.numpy()

    def of(self, chosen: NDArray[np.bool_]) -> "TokenLosses":
        """Those of the tokens where `chosen` is true."""
        return TokenLosses(
            ids=self.ids[chosen],
            parent=self.parent[chosen],
            export=self.export[chosen],
            kl=self.kl[chosen],
            agrees=self.agrees[chosen],
        )


def token_losses(
    parent: PreTrainedModel, export: PreTrainedModel, passages: Sequence[Passage], *, width: int
) -> TokenLosses:
    """What both models lose on the passages' tokens; in no order.

    Memory: beside the models, LOGITS_AT_ONCE of each or one window's, and a few times FLOATS_AT_ONCE.

    Raises: CheckpointError if a model's predictions are no numbers.
    """
    parts = sorted(
        (window for passage in passages for window in windows(passage.ids, width)),
        key=lambda part: -len(part.ids),
    )
    rows = max(1, LOGITS_AT_ONCE // (width * parent.config.vocab_size))
    # Made beforehand: small tensors kept between freed large ones would hold the heap open, 20 GB of it.
    num_tokens = sum(len(part.ids) - part.first for part in parts)
    losses = TokenLosses(
        ids=np.empty(num_tokens, np.int64),
        parent=np.empty(num_tokens),
        export=np.empty(num_tokens),
        kl=np.empty(num_tokens),
        agrees=np.empty(num_tokens, np.bool_),
    )
    done = 0
    with torch.inference_mode():
        for start in tqdm(range(0, len(parts), rows), unit="batch", disable=None):
            for piece in _batch_losses(parent, export, parts[start : start + rows]):
                losses.put(done, piece)
                done += len(piece[0])
    for model, numbers in ((parent, losses.parent), (export, losses.export)):
        if not np.isfinite(numbers).all():
            raise CheckpointError(
                model.name_or_path,
                expected="predictions that are numbers",
                found=f"{np.count_nonzero(~np.isfinite(numbers))} of {len(numbers)} that are not",
                next_step="export it again; if the parent's are not either, train it again",
            )
    return losses


def _batch_losses(
    parent: PreTrainedModel, export: PreTrainedModel, batch: Sequence[Window]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """For each piece of each window: ids, losses of both, KL, agreement."""
    ids = [torch.tensor(window.ids) for window in batch]
    mask = [torch.ones_like(row) for row in ids]
    padded, masks = (torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (ids, mask))
    of_parent, of_export = (
        model(
            input_ids=padded.to(model.device), attention_mask=masks.to(model.device), use_cache=False
        ).logits  # (rows, tokens, vocab)
        for model in (parent, export)
    )
    step = max(1, FLOATS_AT_ONCE // of_parent.shape[-1])
    for row, window in enumerate(batch):
        for place in range(window.first, len(window.ids), step):
            end = min(place + step, len(window.ids))
            targets = ids[row][place:end]
            before = slice(place - 1, end - 1)
            yield targets, *compared(of_parent[row, before], of_export[row, before], targets)


def compared(parent: torch.Tensor, export: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The losses of both models, their KL, and whether their likeliest tokens are the same; on the CPU.

    Shapes: logits (tokens, vocab); targets and results (tokens,). Units: nats.
    KL is the sum of p (log p - log q), p being the parent's distribution.
    """
    agrees = parent.argmax(-1).cpu() == export.argmax(-1).cpu()
    log_p = parent.float().log_softmax(-1)
    log_q = export.to(parent.device).float().log_softmax(-1)
    place = targets.to(parent.device)[:, None]
    losses = (-log_p.gather(1, place)[:, 0], -log_q.gather(1, place)[:, 0])
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    return losses[0].cpu(), losses[1].cpu(), kl.cpu(), agrees


def summary(losses: TokenLosses, kinds: NDArray[np.int8], num_bytes: int) -> TextFidelity:
    """The losses as fidelity.json tells of them. `kinds`: of each token id, its place in TOKEN_KINDS."""
    whole = _group(losses)
    groups = (losses.of(kinds[losses.ids] == number) for number in range(len(TOKEN_KINDS)))
    return TextFidelity(
        num_tokens=whole.num_tokens,
        num_bytes=num_bytes,
        parent=_prediction(losses.parent, num_bytes),
        export=_prediction(losses.export, num_bytes),
        kl_mean=whole.kl_mean,
        kl_p99=whole.kl_p99,
        top1_agreement=whole.top1_agreement,
        by_token={
            kind: _group(group) if len(group.ids) else None
            for kind, group in zip(TOKEN_KINDS, groups, strict=True)
        },
    )


def _prediction(nats: Numbers, num_bytes: int) -> Prediction:
    total = float(nats.sum())
    return Prediction(
        bits_per_byte=measure.bits_per_byte(total, num_bytes), perplexity=measure.perplexity(total, len(nats))
    )


def _group(losses: TokenLosses) -> TokenGroup:
    return TokenGroup(
        num_tokens=len(losses.ids),
        kl_mean=float(losses.kl.mean()),
        kl_p99=float(np.quantile(losses.kl, 0.99)),
        top1_agreement=float(losses.agrees.mean()),
        parent_bits_per_token=float(losses.parent.mean()) / NATS_PER_BIT,
        export_bits_per_token=float(losses.export.mean()) / NATS_PER_BIT,
    )
