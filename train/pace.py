"""How a training run is fitted to its machine: options that every command which trains has."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from malmoi.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a run is fitted to its machine; nothing of it changes what is learnt but the order of sums."""

    rows_at_once: int = 8
    """Rows that a process learns from at once; less takes less memory. A step's others are accumulated."""
    gradient_checkpointing: bool = False
    """Compute activations twice to keep fewer."""
    fsdp: bool = False
    """Spread parameters over the processes (FSDP2)."""
    save_every: int = 100
    """Steps between states to go on from."""
    evaluate_every: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Steps between evaluations. Default: five times a run."""
    wandb: bool = False
    """Send the curves to Weights & Biases, too."""

    def __post_init__(self) -> None:
        for option, value in (
            ("--rows-at-once", self.rows_at_once),
            ("--save-every", self.save_every),
            ("--evaluate-every", self.evaluate_every),
        ):
            if value is not None and value < 1:
                raise RecipeError(
                    option, expected="1 or more", found=str(value), next_step="give another number"
                )
        if self.wandb and not find_spec("wandb"):
            raise RecipeError(
                "--wandb", expected="the package wandb", found="none", next_step="install it, or leave this out"
            )

    def states(self, folder: Path) -> Path:
        """Where states are: those that are spread over processes are of another layout, in another folder."""
        return folder.with_name(f"{folder.name}-spread") if self.fsdp else folder
