"""The host's own record: what it has, and what on it belongs to no object any more."""

from agent_kaktus.network.adapter import remove_stale_tap_filters
from agent_kaktus.network.vnet import remove_stale_metadata_filter
from agent_kaktus.plan import GONE, Kind, Verdict, View
from kowa.runtime.desired import DesiredObject
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
        resource.status.strangers.extend(view.strangers)
