"""Regions: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class RegionService(StandardMethods):
    """Regions: the standard methods, nothing else."""

    kind = "Region"
