"""The page at `/`: a chat beside the server's latencies, the model's card and its fidelity."""
