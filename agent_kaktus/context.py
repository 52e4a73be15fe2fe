"""Kinds that ask nothing of this host, and are there to be named: regions, zones, projects, network nodes."""

from dataclasses import dataclass
from typing import Any

from agent_kaktus.kind import D, Kind
from kowa.runtime.desired import DesiredObject, Identity
from kowa.v2 import kiwi_pb2, project_pb2, region_pb2, zone_pb2


@dataclass(frozen=True, slots=True)
class Region(DesiredObject):
    name: str


@dataclass(frozen=True, slots=True)
class Zone(DesiredObject):
    name: str
    region: str


@dataclass(frozen=True, slots=True)
class Project(DesiredObject):
    name: str


@dataclass(frozen=True, slots=True)
class Kiwi(DesiredObject):
    name: str


class Context(Kind[D]):
    is_context = True

    def parse(self, identity: Identity, sent: Any) -> D:
        make: Any = self.value
        found: D = make(*identity, sent.name)
        return found


class Regions(Context[Region]):
    message, value = region_pb2.Region, Region


class Zones(Context[Zone]):
    message, value = zone_pb2.Zone, Zone

    def parse(self, identity: Identity, sent: zone_pb2.Zone) -> Zone:
        return Zone(*identity, sent.name, sent.region)


class Projects(Context[Project]):
    message, value = project_pb2.Project, Project


class Kiwis(Context[Kiwi]):
    message, value = kiwi_pb2.Kiwi, Kiwi
