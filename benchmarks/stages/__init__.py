"""A stage's step time and memory, against the published gradient hook and PEFT's trainable tokens."""
