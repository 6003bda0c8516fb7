"""What only a GPU can tell: training steps, GPTQ exports and serving, at sizes that people use."""
