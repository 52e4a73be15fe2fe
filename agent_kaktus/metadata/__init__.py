"""What machines are told of themselves, at an address on their own link."""
