"""Errors that only this agent has; those of steps are in kowa.runtime.errors."""

from kowa.runtime.errors import StepFailed


class TransferInterrupted(Exception):
    """A source of bytes stopped sending, closed, or answered with a temporary error: worth another try."""


class LibvirtUnavailable(StepFailed):
    """Libvirt can't be reached: nothing can be observed or changed."""
