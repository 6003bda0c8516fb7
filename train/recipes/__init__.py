"""Models as data: one recipe a file, and the registry of them."""
