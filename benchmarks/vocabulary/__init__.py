"""Counting words and choosing tokens, against a plain Counter and against re-tokenizing the corpus."""
