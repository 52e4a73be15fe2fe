"""Network nodes: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class KiwiService(StandardMethods):
    """Network nodes: the standard methods, nothing else."""

    kind = "Kiwi"
