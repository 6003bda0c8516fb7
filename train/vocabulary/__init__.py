"""Grows a model's vocabulary: which tokens, the tokenizer that makes them, the rows they begin with."""
