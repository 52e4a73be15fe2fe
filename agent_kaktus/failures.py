"""Why a step was not done."""


class StepFailed(Exception):
    """It did not work this time; it is tried again."""


class GivenUp(StepFailed):
    """It can't work for this generation; it is not tried again until that moves."""


class BrokenOff(Exception):
    """A source of bytes went quiet or away, or asks for patience: worth another try."""


class Away(StepFailed):
    """Libvirt is not there: nothing is known and nothing can be done."""
