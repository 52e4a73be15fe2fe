"""Waiting for conditions, so that tests do not sleep."""

from deploy.programs import until

__all__ = ["until"]
