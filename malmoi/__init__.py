"""The ground floor: what all three rooms agree on. Standard library only."""

__version__ = "0.1.0"
