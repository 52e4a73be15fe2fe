"""The kinds that this agent knows, each after those it may refer to. A new kind's module is named here only."""

from typing import Any

from agent_kaktus.compute.instance import Instances
from agent_kaktus.context import Kiwis, Projects, Regions, Zones
from agent_kaktus.kaktus import Kaktuses
from agent_kaktus.network.adapter import Adapters
from agent_kaktus.network.vnet import Subnets, Vnets
from agent_kaktus.plan import Kind
from agent_kaktus.storage.storage_pool import StoragePools
from agent_kaktus.storage.template import Templates
from agent_kaktus.storage.volume import Volumes
from kowa.runtime.desired import Kinds

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
