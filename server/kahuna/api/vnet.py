"""Network segments: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class VnetService(StandardMethods):
    """Network segments: the standard methods, nothing else."""

    kind = "Vnet"
