"""How good a checkpoint is: language modelling, benchmarks, chat behaviour, and how several compare."""
