"""Zones: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class ZoneService(StandardMethods):
    """Zones: the standard methods, nothing else."""

    kind = "Zone"
