"""The Kiwi agent as the stream sees it."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version

import structlog
from google.protobuf.message import Message

from agent_kiwi.desired import KINDS, Subnet, Vnet
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.desired import Desired, DesiredObject
from kowa.runtime.feed import Feed, NoInstances, Refused
from kowa.v2 import kiwi_pb2

log = structlog.get_logger()

VERSION = version("kowa")
LOOK_INTERVAL_S = 60.0  # when no event comes


class KiwiWorker(NoInstances):
    """Knows the networks of its region. It makes nothing of them on its host yet."""

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        """Raises Refused when an object can't be understood."""
        KINDS.parse(desired)

    async def run(self, feed: Feed) -> None:
        while True:
            try:
                for report in reports(KINDS.parse(feed.desired())):
                    feed.report(report)
            except Refused as why:  # a stored slice that this version does not take; Kahuna sends a better one
                log.warning("slice.refused", reason=str(why))
            await feed.wait_for_change(LOOK_INTERVAL_S)


def reports(desired: Desired) -> Iterator[fleet_pb2.Report]:
    """What Kahuna learns: the node is as wanted, and what shall be gone is gone, for nothing was made."""
    if node := desired.node:
        kiwi = kiwi_pb2.Kiwi(status=kiwi_pb2.KiwiStatus(version=VERSION))
        yield _applied(node, kiwi, gone=False)
    for wanted in desired:
        if wanted.gone and isinstance(wanted, Vnet | Subnet):
            yield _applied(wanted, KINDS.of(wanted).message(), gone=True)


def _applied(wanted: DesiredObject, resource: Message, *, gone: bool) -> fleet_pb2.Report:
    return fleet_pb2.Report(
        id=wanted.id,
        observed_generation=wanted.generation,
        gone=gone,
        resource=resources.pack(resource),
        outcome=fleet_pb2.OUTCOME_APPLIED,
    )
