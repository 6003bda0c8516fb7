"""Text in, counted words out: shards of any common format, read once, as datatrove pipeline steps."""
