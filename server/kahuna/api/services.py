"""All services of the platform's API."""

from kahuna.api.adapter import AdapterService
from kahuna.api.agent import AgentService
from kahuna.api.agent_token import AgentTokenService
from kahuna.api.instance import InstanceService
from kahuna.api.kaktus import KaktusService
from kahuna.api.kiwi import KiwiService
from kahuna.api.operation import OperationService
from kahuna.api.project import ProjectService
from kahuna.api.region import RegionService
from kahuna.api.service import Platform, StandardMethods
from kahuna.api.storage_pool import StoragePoolService
from kahuna.api.subnet import SubnetService
from kahuna.api.template import TemplateService
from kahuna.api.vnet import VnetService
from kahuna.api.volume import VolumeService
from kahuna.api.zone import ZoneService

SERVICES: tuple[type[StandardMethods], ...] = (
    RegionService, ZoneService, ProjectService, AgentService, AgentTokenService, KaktusService, KiwiService,
    StoragePoolService, TemplateService, VolumeService, VnetService, SubnetService, AdapterService, InstanceService,
    OperationService,
)  # fmt: skip


def services(platform: Platform) -> list[StandardMethods]:
    """One of each."""
    return [service(platform) for service in SERVICES]
