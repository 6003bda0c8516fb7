"""What new rows begin with: the loss of a grown model before any training, for each way to make them."""
