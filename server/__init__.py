"""Room three: serve a checkpoint behind an OpenAI-compatible API and measure its latency."""
