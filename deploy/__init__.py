"""How Kowabunga is brought to a machine."""
