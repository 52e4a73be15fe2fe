"""Network nodes: the standard methods, nothing else."""

from kahuna.api.node import NodeService


class KiwiService(NodeService):
    """Network nodes: the standard methods, nothing else."""

    kind = "Kiwi"
