"""What both agents stand on: the stream to Kahuna, the durable store of what is wanted, reports."""
