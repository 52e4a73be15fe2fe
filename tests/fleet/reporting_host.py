"""A host's agent played by hand, which reports what a test says."""

import itertools
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message

from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2, kaktus_pb2
from tests.control_plane import GIB
from tests.fleet.manual_agent import AgentStream, objects
from tests.site import Site
from tests.waiting import until

APPLIED = fleet_pb2.OUTCOME_APPLIED


def instance_status(
    power: instance_pb2.Power = instance_pb2.POWER_RUNNING, *, by_guest: bool = False, **more: Any
) -> Message:
    """An instance as an agent reports it."""
    status = instance_pb2.InstanceStatus(power=power, guest_powered_off=by_guest, **more)
    return instance_pb2.Instance(status=status)


class ReportingHost:
    """The host's agent, played by hand: in step, and with capacity for instances."""

    def __init__(self, site: Site, stream: AgentStream) -> None:
        self.site, self.stream = site, stream
        self._sizes = itertools.count(64 * GIB)
        self.stream.sign_in()
        self.store_batch()
        self.settle()

    def store_batch(self) -> list[fleet_pb2.Object]:
        """Takes the next batch and acks it."""
        parts = self.stream.batch()
        self.stream.ack(parts)
        return objects(parts)

    def report(
        self,
        id_: str,
        resource: Message | Packed | None,
        outcome: int = APPLIED,
        generation: int = 1,
        *,
        gone: bool = False,
        message: str = "",
    ) -> None:
        """Reports an object; returns when Kahuna has stored or dropped the report."""
        report = fleet_pb2.Report(id=id_, observed_generation=generation, gone=gone, message=message)
        report.outcome = outcome  # type: ignore[assignment]
        if resource is not None:
            report.resource.CopyFrom(resource if isinstance(resource, Packed) else resources.pack(resource))
        self.stream.send(reports=fleet_pb2.Reports(reports=[report]))
        self.settle()

    def settle(self) -> None:
        """Reports a new capacity, and returns when it is stored: what was reported before is then stored, too."""
        memory = next(self._sizes)
        status = kaktus_pb2.KaktusStatus(cpus=8, memory=memory, architecture="x86_64")
        report = fleet_pb2.Report(id=self.site.host.meta.id, observed_generation=1, outcome=APPLIED)
        report.resource.CopyFrom(resources.pack(kaktus_pb2.Kaktus(status=status)))
        self.stream.send(reports=fleet_pb2.Reports(reports=[report]))
        hosts = self.site.client.kaktuses
        until(lambda: hosts.get(self.site.host.meta.id).status.memory == memory, what="the capacity")

    def dropped(self) -> dict[str, int]:
        """The dropped reports of this session, by reason."""
        session = self.site.cloud.kahuna.fleet.sessions[self.site.agent.meta.id]
        return {str(reason): counted.count for reason, counted in session.dropped.items()}
