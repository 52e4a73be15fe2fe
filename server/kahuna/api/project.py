"""Projects: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class ProjectService(StandardMethods):
    """Projects: the standard methods, nothing else."""

    kind = "Project"
