"""Kinds that need no steps on this host and are only referred to: regions, zones, projects, network nodes."""

from dataclasses import dataclass
from typing import Any

from agent_kaktus.plan import D, Kind
from kowa.runtime.desired import DesiredObject, Identity
from kowa.v2 import kiwi_pb2, project_pb2, region_pb2, zone_pb2


class Region(DesiredObject):
    """One physical location."""


@dataclass(frozen=True, slots=True)
class Zone(DesiredObject):
    region: str


class Project(DesiredObject):
    """Whose instances are."""


class Kiwi(DesiredObject):
    """A network node."""


class Context(Kind[D]):
    needs_host = False

    def parse(self, identity: Identity, sent: Any) -> D:
        return self.value(*identity)


class Regions(Context[Region]):
    message, value = region_pb2.Region, Region


class Zones(Context[Zone]):
    message, value = zone_pb2.Zone, Zone

    def parse(self, identity: Identity, sent: zone_pb2.Zone) -> Zone:
        return Zone(*identity, sent.region)


class Projects(Context[Project]):
    message, value = project_pb2.Project, Project


class Kiwis(Context[Kiwi]):
    message, value = kiwi_pb2.Kiwi, Kiwi
