"""The metadata service: what instances learn of themselves, at an address on their own link."""
