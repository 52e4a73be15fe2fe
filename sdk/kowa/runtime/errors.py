"""Errors of steps and observations."""


class StepFailed(Exception):
    """A step failed this time; it is tried again."""


class PermanentFailure(StepFailed):
    """A step can't succeed for this generation of its object; it is not tried again until that changes."""
