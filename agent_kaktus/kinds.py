"""The kinds that this agent implements, including its own host's. A new kind is registered here only."""

from agent_kaktus.compute.instance import Instances
from agent_kaktus.context import Kiwis, Projects, Regions, Zones
from agent_kaktus.kind import Kind, Kinds, View
from agent_kaktus.network.adapter import Adapters, remove_stale_tap_filters
from agent_kaktus.network.vnet import Subnets, Vnets, remove_stale_metadata_filter
from agent_kaktus.storage.storage_pool import StoragePools
from agent_kaktus.storage.template import Templates
from agent_kaktus.storage.volume import Volumes
from kowa.runtime.desired import DesiredObject
from kowa.runtime.verdict import GONE, Verdict
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


# Each after the kinds that it may refer to.
KINDS: Kinds = Kinds(
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
