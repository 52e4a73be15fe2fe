"""Hosts: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class KaktusService(StandardMethods):
    """Hosts: the standard methods, nothing else."""

    kind = "Kaktus"
