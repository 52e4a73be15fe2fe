"""The made-up kinds in Kahuna: their tables, rules and verbs. Import it after `install()`."""

from typing import Any

from sqlmodel import Field, col, select

from kahuna.domain.errors import invalid
from kahuna.kinds.kind import Call, Kind
from kahuna.kinds.verbs import answers_call, changes_state
from kahuna.store.resource import Resource, copy_of
from kahuna.store.transaction import Transaction
from tests.made_up import made_up


class Farm(Resource, table=True):
    """A location of balancers."""

    name: str

    informs = ("Balancer(farm).members.kaktus.agent",)


class Balancer(Resource, table=True):
    """A balancer, which spreads calls over hosts."""

    farm_id: str = Field(foreign_key="farm.id", index=True)
    name: str
    kaktus_id: str | None = Field(default=None, foreign_key="kaktus.id", index=True)
    address: str | None = None

    constraint_messages = {
        ("address",): ("ADDRESS_TAKEN", "address", "{address} belongs to another balancer; choose another")
    }
    reaches = ("kaktus.agent", "members.kaktus.agent")


class Balancers(Kind[Any], table=Balancer):
    """Balancers: the agent of their host and those of their members get them."""

    @changes_state
    def drain(self, tx: Transaction, resource: Any, request: Any) -> None:
        """Removes a host from the members."""
        remaining = [member for member in resource.members if member.kaktus != request.kaktus]
        if len(remaining) == len(resource.members):
            raise invalid("kaktus", f"{request.kaktus} is not a member of balancer {resource.name}")
        del resource.members[:]
        resource.members.extend(remaining)

    @answers_call
    async def rebalance(self, call: Call, request: Any) -> Any:
        """Removes hosts from all balancers of a farm."""
        without = {member.kaktus for member in request.without}

        def work(tx: Transaction) -> int:
            moved = 0
            found = select(Balancer.id).where(Balancer.farm_id == request.farm, col(Balancer.delete_time).is_(None))
            for id_ in tx.session.exec(found).all():
                balancer: Any = tx.get("Balancer", id_)
                wanted = copy_of(balancer)
                del wanted.members[:]
                wanted.members.extend(member for member in balancer.members if member.kaktus not in without)
                moved += wanted != balancer
                self.update(tx, call.cause, wanted, ["members"])
            return moved

        store = self.platform.store
        moved = await (store.plan(work) if request.validate_only else store.run(work))
        return made_up().stub("made_up.v1.RebalanceBalancersResponse")(moved=moved)
