"""One contender in one stage, in a process of its own: python -m benchmarks.stages.task CONTENDER STAGE."""

import json
import resource
import sys
import time

import torch

from benchmarks.stages.contenders import CONTENDERS, STAGES

ROWS, ROW_TOKENS = 8, 128
WARM_UP, STEPS = 2, 6


def measure(contender: str, stage: str) -> dict[str, object]:
    """Seconds of each step, bytes of gradients and optimizer state, and the process's greatest memory."""
    model = CONTENDERS[contender](STAGES[stage])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.1, fused=True)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (ROWS, ROW_TOKENS), generator=generator)
    seconds, losses, gradient_bytes = [], [], 0
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        gradient_bytes = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return {
        "contender": contender,
        "stage": stage,
        "seconds": seconds[WARM_UP:],
        "losses": losses,
        "gradient_bytes": gradient_bytes,
        "optimizer_bytes": sum(value.nbytes for value in state if torch.is_tensor(value)),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
