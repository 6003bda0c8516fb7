"""malmoi-serve against the stock vLLM server: same engine, same flags; then each as it comes."""
