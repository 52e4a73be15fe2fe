"""Waiting for a condition, never for a time."""

from deploy.programs import until

__all__ = ["until"]
