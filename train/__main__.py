"""malmoi-train: a few commands, each of which ends in a checkpoint."""

import logging
import os
from pathlib import Path

from tyro.extras import SubcommandApp

from malmoi.errors import reported_in_one_line

LOUD_AT_IMPORT = ("torchao", "torch.utils._pytree", "bitsandbytes")
"""Libraries that transformers loads when they are there, and that tell of kernels nobody asked for."""

app = SubcommandApp()


@app.command
def demo(out: Path, seed: int = 0, overwrite: bool = False) -> None:
    """Train a small Korean chat model from nothing, in minutes, to see every later step work.

    Args:
        out: Directory to write the checkpoint to.
        seed: The same seed on the same machine gives the same bytes.
        overwrite: Replace what is in the directory.
    """
    # A thread that waits for another must not spin: beside any other busy process it takes the core that
    # the other needs, and a step took ten times as long. Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from train.demo.course import OVERALL, teach

    metrics = teach(out, seed=seed, overwrite=overwrite)
    print(f"{out}: {metrics[OVERALL]:.1%} of held-out questions answered right")


def main() -> None:
    """Runs the command that the arguments name."""
    logging.basicConfig(format="%(name)s: %(message)s")
    for name in LOUD_AT_IMPORT:
        logging.getLogger(name).setLevel(logging.ERROR)
    with reported_in_one_line():
        app.cli(prog="malmoi-train", description=__doc__)


if __name__ == "__main__":
    main()
