"""Kiwis: the network nodes of a region, each with agents in its zones."""

from sqlalchemy import Index, text
from sqlmodel import Field, col

from kahuna.domain.errors import invalid
from kahuna.kinds.agent import check_agents
from kahuna.kinds.kind import Kind
from kahuna.store.resource import Resource
from kahuna.store.tables import Reference
from kahuna.store.transaction import Transaction
from kowa.v2 import kiwi_pb2, zone_pb2

_MEMBERS = text("kind = 'Kiwi' AND field = 'members.agent'")
_AGENT = col(Reference.target_id)
Index("ix_reference_kiwi_agent", _AGENT, unique=True, sqlite_where=_MEMBERS, postgresql_where=_MEMBERS)


class Kiwi(Resource, table=True):
    region_id: str = Field(foreign_key="region.id", index=True)
    name: str

    informs = ("members.agent",)


class Kiwis(Kind[kiwi_pb2.Kiwi], table=Kiwi):
    def before_create(self, tx: Transaction, resource: kiwi_pb2.Kiwi) -> None:
        """Refuses members of another region or with one address, and agents that serve another node."""
        check_agents(tx, resource)
        _check_members(tx, resource)

    def before_update(self, tx: Transaction, before: kiwi_pb2.Kiwi, after: kiwi_pb2.Kiwi) -> None:
        check_agents(tx, after, before)
        if after.members != before.members:  # those stored before a check was made are left alone
            _check_members(tx, after)


def _check_members(tx: Transaction, kiwi: kiwi_pb2.Kiwi) -> None:
    addresses: dict[str, int] = {}
    for index, member in enumerate(kiwi.members):
        zone = tx.one(zone_pb2.Zone, member.zone)
        if zone.region != kiwi.region:
            raise invalid(f"members[{index}].zone", f"zone {zone.name} lies in another region than the kiwi")
        if member.underlay_address and (first := addresses.setdefault(member.underlay_address, index)) != index:
            raise invalid(
                f"members[{index}].underlay_address",
                f"{member.underlay_address} is the address of members[{first}], too; give each member its own",
            )
