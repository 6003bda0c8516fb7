"""Room one: grow the vocabulary, train, tune, evaluate. Ends in a checkpoint."""
