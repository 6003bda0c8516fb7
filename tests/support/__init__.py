"""What several tests stand on: small checkpoints, a scripted engine, a real server."""
