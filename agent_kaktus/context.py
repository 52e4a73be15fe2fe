"""Kinds that need no steps on this host and are only referred to: regions, zones, projects, network nodes."""

from agent_kaktus.kind import Kind
from kowa.runtime.desired import DesiredObject
from kowa.v2 import kiwi_pb2, project_pb2, region_pb2, zone_pb2


class Region(DesiredObject):
    """The physical location that this host is in."""


class Zone(DesiredObject):
    """The part of the region that this host is in."""


class Project(DesiredObject):
    """The owner of instances."""


class Kiwi(DesiredObject):
    """A network node."""


class Regions(Kind[Region]):
    message, value, needs_host = region_pb2.Region, Region, False


class Zones(Kind[Zone]):
    message, value, needs_host = zone_pb2.Zone, Zone, False


class Projects(Kind[Project]):
    message, value, needs_host = project_pb2.Project, Project, False


class Kiwis(Kind[Kiwi]):
    message, value, needs_host = kiwi_pb2.Kiwi, Kiwi, False
