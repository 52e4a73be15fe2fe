"""The Kiwi agent: the kinds that it implements, and its reports. It creates nothing on its host yet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import structlog

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import Desired, DesiredObject, Identity, Kind, Kinds, parse_address, parse_network
from kowa.runtime.feed import Feed, Refused, Worker
from kowa.runtime.settings import VERSION
from kowa.v2 import kiwi_pb2, region_pb2, subnet_pb2, vnet_pb2

log = structlog.get_logger()

REPORT_INTERVAL_S = 60.0  # when no event comes


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
    message, value = region_pb2.Region, Region


class Kiwis(Kind[Kiwi]):
    message, value, is_node = kiwi_pb2.Kiwi, Kiwi, True


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


KINDS: Kinds[Kind[Any]] = Kinds(Regions(), Kiwis(), Vnets(), Subnets())


class KiwiWorker(Worker):
    """Reports on the networks of its region."""

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        KINDS.parse(desired)

    async def run(self, feed: Feed) -> None:
        while True:
            try:
                for report in reports(KINDS.parse(feed.desired())):
                    feed.report(report)
            except Refused as error:  # a stored slice that this version can't parse; Kahuna sends a new one
                log.warning("slice.refused", reason=str(error))
            await feed.wait_for_change(REPORT_INTERVAL_S)


def reports(desired: Desired) -> Iterator[fleet_pb2.Report]:
    """Reports that the node is as wanted and that deleted networks are gone, since nothing was created for them."""
    for wanted in desired:
        is_node = wanted is desired.node
        if is_node or (wanted.gone and isinstance(wanted, Vnet | Subnet)):
            status = {"status": kiwi_pb2.KiwiStatus(version=VERSION)} if is_node else {}
            yield fleet_pb2.Report(
                id=wanted.id,
                observed_generation=wanted.generation,
                gone=not is_node,
                resource=resources.pack(KINDS.of(wanted).message(**status)),
                outcome=fleet_pb2.OUTCOME_APPLIED,
            )
