"""Why something was not done."""


class StepFailed(Exception):
    """A step did not work this time; it is tried again."""


class PermanentFailure(StepFailed):
    """A step can't work for this generation of its object; it is not tried again until that changes."""


class TransferInterrupted(Exception):
    """A source of bytes stopped sending, closed or asked to try later: worth another try."""


class LibvirtUnavailable(StepFailed):
    """Libvirt is not there: nothing is known and nothing can be done."""
