"""The Kiwi agent: the kinds that it implements. It creates nothing on its host yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias, TypeVar

from kowa.fleet.v1 import fleet_pb2
from kowa.runtime import kind
from kowa.runtime.desired import DesiredObject, Identity, parse_address, parse_network
from kowa.runtime.feed import Feed, Worker
from kowa.runtime.reconciler import Reconciler
from kowa.runtime.settings import AgentSettings
from kowa.runtime.verdict import GONE, Verdict
from kowa.v2 import kiwi_pb2, region_pb2, subnet_pb2, vnet_pb2
from kowa.v2.meta_pb2 import Condition

NETWORKS_NOT_SERVED = Condition(
    type="NetworksNotServed",
    reason="NOT_IMPLEMENTED",
    message="This release of the agent reports vnets and subnets as applied, and sets up nothing for them.",
)


@dataclass(frozen=True, slots=True)
class Actual:
    """The state of the node: nothing yet."""

    unseen: Mapping[str, str] = field(default_factory=dict)


class Node:
    """The node that the agent runs on."""

    async def observe(self, node: str) -> Actual:
        return Actual()


D = TypeVar("D", bound=DesiredObject)

View: TypeAlias = kind.View[AgentSettings, Actual]
Kind: TypeAlias = kind.Kind[D, AgentSettings, Actual]
Kinds: TypeAlias = kind.Kinds[AgentSettings, Actual]


class Region(DesiredObject):
    """A region; needs no steps on this node."""


class Kiwi(DesiredObject):
    """This node."""


class Vnet(DesiredObject):
    """A network of the region, or of a project in it."""


@dataclass(frozen=True, slots=True)
class Subnet(DesiredObject):
    """A subnet. The addresses of one that is being deleted are not parsed, and are empty here."""

    network: IPv4Network | None
    gateway: IPv4Address | None
    dns: tuple[IPv4Address, ...]


class Regions(Kind[Region]):
    message, value, needs_host = region_pb2.Region, Region, False


class Kiwis(Kind[Kiwi]):
    message, value, is_node = kiwi_pb2.Kiwi, Kiwi, True

    def plan(self, view: View, wanted: Kiwi) -> Verdict:
        return GONE if wanted.gone else Verdict(conditions=(NETWORKS_NOT_SERVED,))


class Vnets(Kind[Vnet]):
    message, value = vnet_pb2.Vnet, Vnet


class Subnets(Kind[Subnet]):
    message, value = subnet_pb2.Subnet, Subnet

    def parse(self, identity: Identity, sent: subnet_pb2.Subnet) -> Subnet:
        _, _, gone, _ = identity
        if gone:
            return Subnet(*identity, None, None, ())
        network = parse_network(sent.cidr)
        gateway = parse_address("gateway", sent.gateway) if sent.gateway else None
        if gateway and (gateway not in network or gateway in (network.network_address, network.broadcast_address)):
            raise ValueError(f"gateway {gateway} is not a host address of {network}")
        return Subnet(*identity, network, gateway, tuple(parse_address("dns", server) for server in sent.dns))


KINDS: Kinds = Kinds(Regions(), Kiwis(), Vnets(), Subnets())


class KiwiWorker(Worker):
    """Runs the networks of its region."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        KINDS.parse(desired)

    async def run(self, feed: Feed) -> None:
        await Reconciler(self._settings.agent, KINDS, self._settings, feed, Node()).run()
