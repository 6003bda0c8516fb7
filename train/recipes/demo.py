"""A model small enough to train while one waits, to see every later step work; not a chatbot."""

from typing import Final

from train.recipe import Architecture, Recipe, Schedule, Vocabulary

DEMO: Final = Recipe(
    name="demo",
    source="measured here: docs/train.md",
    architecture=Architecture(hidden_size=128, intermediate_size=384, num_layers=3, num_heads=2),
    vocabulary=Vocabulary(size=1024),
    schedule=Schedule(
        epochs=2,
        row_tokens=384,
        rows_per_step=10,
        matrix_learning_rate=6e-3,
        learning_rate=3e-3,
        warmup_share=0.05,
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        num_threads=2,
    ),
)
