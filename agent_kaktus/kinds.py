"""The kinds that this agent implements, including its own host's. A new kind is registered here only."""

from typing import Any

from agent_kaktus.compute.instance import Instances
from agent_kaktus.context import Kiwis, Projects, Regions, Zones
from agent_kaktus.network.adapter import Adapters, remove_stale_tap_filters
from agent_kaktus.network.vnet import Subnets, Vnets, remove_stale_metadata_filter
from agent_kaktus.plan import GONE, Kind, Verdict, View, strangers
from agent_kaktus.storage.storage_pool import StoragePools
from agent_kaktus.storage.template import Templates
from agent_kaktus.storage.volume import Volumes
from kowa.runtime.desired import DesiredObject, Kinds
from kowa.runtime.settings import VERSION
from kowa.v2 import kaktus_pb2


class Kaktus(DesiredObject):
    """This host."""


class Kaktuses(Kind[Kaktus]):
    message, value, is_node = kaktus_pb2.Kaktus, Kaktus, True

    def plan(self, view: View, wanted: Kaktus) -> Verdict:
        return GONE if wanted.gone else Verdict((*remove_stale_tap_filters(view), *remove_stale_metadata_filter(view)))

    def fill_status(self, view: View, wanted: Kaktus, resource: kaktus_pb2.Kaktus) -> None:
        resource.status.CopyFrom(view.actual.facts)
        resource.status.hypervisor += f" ({view.config.accelerator})"
        resource.status.version = VERSION
        resource.status.strangers.extend(strangers(view))


# Each after the kinds that it may refer to.
KINDS: Kinds[Kind[Any]] = Kinds(
    Regions(),
    Zones(),
    Projects(),
    Kiwis(),
    Kaktuses(),
    StoragePools(),
    Templates(),
    Volumes(),
    Vnets(),
    Subnets(),
    Adapters(),
    Instances(),
)
