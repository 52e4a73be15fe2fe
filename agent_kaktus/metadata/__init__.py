"""The metadata service: gives instances their own metadata, at an address on their own link."""
