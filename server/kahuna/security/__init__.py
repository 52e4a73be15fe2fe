"""Identities of callers, their permissions, keys and certificates."""
