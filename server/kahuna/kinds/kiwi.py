"""Kiwis: network nodes of a region."""

from sqlmodel import Field

from kahuna.kinds.node import NodeKind
from kahuna.store.resource import Resource, unique_unless_deleted
from kowa.v2 import kiwi_pb2


class Kiwi(Resource, table=True):
    """Network nodes of a region; an agent belongs to one at most."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str
    agent_id: str | None = Field(default=None, foreign_key="agent.id")

    __table_args__ = (unique_unless_deleted("region_id", "name"), unique_unless_deleted("agent_id"))
    taken = {("agent_id",): ("IN_USE", "agent: it belongs to another kiwi; an agent serves one node at most")}


class Kiwis(NodeKind[kiwi_pb2.Kiwi]):
    """Network nodes: the standard methods, nothing else."""

    table = Kiwi
    informs = ("agent",)
