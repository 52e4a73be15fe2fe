"""Kowabunga's Python SDK: the contracts' stubs, a client, and what both agents stand on."""
