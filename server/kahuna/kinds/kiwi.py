"""Kiwis: the network nodes of a region, each with agents in its zones."""

from sqlalchemy import Index, text
from sqlmodel import Field, col

from kahuna.domain.errors import invalid
from kahuna.kinds.node import NodeKind
from kahuna.store.resource import Resource, unique_unless_deleted
from kahuna.store.tables import Reference
from kahuna.store.transaction import Transaction
from kowa.v2 import kiwi_pb2, zone_pb2

_MEMBERS = text("kind = 'Kiwi' AND field = 'members.agent'")
_AGENT = col(Reference.target_id)
Index("ix_reference_kiwi_agent", _AGENT, unique=True, sqlite_where=_MEMBERS, postgresql_where=_MEMBERS)


class Kiwi(Resource, table=True):
    """Network nodes of a region; an agent is a member of one at most."""

    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    __table_args__ = (unique_unless_deleted("region_id", "name"),)
    informs = ("members.agent",)


class Kiwis(NodeKind[kiwi_pb2.Kiwi], table=Kiwi):
    """Network nodes; their members stand in zones of the region."""

    def before_create(self, tx: Transaction, resource: kiwi_pb2.Kiwi) -> None:
        """Refuses members of another region, and agents that serve another node."""
        super().before_create(tx, resource)
        _check_zones(tx, resource)

    def before_update(self, tx: Transaction, before: kiwi_pb2.Kiwi, after: kiwi_pb2.Kiwi) -> None:
        """Members are looked at as at first."""
        super().before_update(tx, before, after)
        _check_zones(tx, after)


def _check_zones(tx: Transaction, kiwi: kiwi_pb2.Kiwi) -> None:
    for index, member in enumerate(kiwi.members):
        zone = tx.one(zone_pb2.Zone, member.zone)
        if zone.region != kiwi.region:
            raise invalid(f"members[{index}].zone", f"zone {zone.name} lies in another region than the kiwi")
