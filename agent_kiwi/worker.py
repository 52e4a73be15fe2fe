"""The Kiwi agent as the stream sees it."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version

import structlog

from agent_kiwi.desired import Desired, parse
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.feed import Feed, NoMachines, Refused
from kowa.v2 import kiwi_pb2, subnet_pb2, vnet_pb2

log = structlog.get_logger()

VERSION = version("kowa")
# How long it sits still when nothing moves, in seconds.
LOOK = 60.0


class Kiwi(NoMachines):
    """A worker: knows the networks of its region. It makes nothing of them on its host yet."""

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Raises Refused when an object can't be understood."""
        parse(desired)

    async def run(self, feed: Feed) -> None:
        while True:
            try:
                for report in reports(parse(feed.desired())):
                    feed.report(report)
            except Refused as why:  # a stored slice that this version does not take; Kahuna sends a better one
                log.warning("slice.refused", reason=str(why))
            await feed.moved(LOOK)


def reports(desired: Desired) -> Iterator[fleet_pb2.Report]:
    """What Kahuna is told: the node is as wanted, and what shall be gone is gone, for nothing was made."""
    if desired.node:
        status = kiwi_pb2.KiwiStatus(version=VERSION)
        yield fleet_pb2.Report(
            id=desired.node.id,
            observed_generation=desired.node.generation,
            resource=resources.pack(kiwi_pb2.Kiwi(status=status)),
            outcome=fleet_pb2.OUTCOME_APPLIED,
        )
    for empty, things in ((subnet_pb2.Subnet(), desired.ranges), (vnet_pb2.Vnet(), desired.segments)):
        for thing in (thing for thing in things.values() if thing.gone):
            yield fleet_pb2.Report(
                id=thing.id,
                observed_generation=thing.generation,
                gone=True,
                resource=resources.pack(empty),
                outcome=fleet_pb2.OUTCOME_APPLIED,
            )
