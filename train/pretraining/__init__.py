"""Continued pre-training: what a stage trains, the rows of tokens it reads, and the one loop over stages."""
