"""Agents: the standard methods, nothing else."""

from kahuna.api.service import StandardMethods


class AgentService(StandardMethods):
    """Agents: the standard methods, nothing else."""

    kind = "Agent"
