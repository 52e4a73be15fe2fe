"""The Kaktus agent: connects the stream to the reconciler, libvirt and consoles."""

from collections.abc import AsyncIterator, Mapping

import structlog

from agent_kaktus.compute import console
from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.host import LocalHost
from agent_kaktus.kinds import KINDS
from agent_kaktus.metadata.server import Server
from agent_kaktus.metadata.services import MetadataServices
from agent_kaktus.metadata.tokens import Tokens, load_key
from agent_kaktus.settings import Settings
from agent_kaktus.storage.dir import DirDriver
from agent_kaktus.storage.imports import Imports
from agent_kaktus.storage.source import Sources
from agent_kaktus.storage.storage_pool import StoragePool
from agent_kaktus.storage.template import importing
from kowa.fleet.v1 import fleet_pb2
from kowa.runtime.errors import StepFailed
from kowa.runtime.feed import Feed, Keys, Refused, Worker
from kowa.runtime.reconciler import Reconciler
from kowa.runtime.tasks import Tasks

log = structlog.get_logger()


class KaktusWorker(Worker):
    """Runs the instances of one host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hypervisor: Hypervisor | None = None

    def accept(self, desired: Mapping[str, fleet_pb2.Object]) -> None:
        KINDS.parse(desired)

    async def act(self, command: fleet_pb2.Command) -> None:
        hypervisor, action = self._running_hypervisor(), command.WhichOneof("action")
        verb = {"reboot": hypervisor.reboot, "reset": hypervisor.reset}.get(str(action))
        if verb is None:
            raise Refused(f"this agent does not implement the command {action}; upgrade it")
        try:
            await verb(command.target)
        except StepFailed as error:
            raise Refused(str(error)) from error

    async def console(self, instance: str, keys: Keys) -> AsyncIterator[bytes]:
        hypervisor = self._running_hypervisor()
        tasks = Tasks()
        tasks.spawn(console.type_in(keys, lambda: hypervisor.serial(instance)), "console keys")
        try:
            async for data in console.follow(self._settings.console(instance)):
                yield data
        finally:
            await tasks.close()

    def _running_hypervisor(self) -> Hypervisor:
        if self._hypervisor is None:
            raise Refused("the agent is still starting")
        return self._hypervisor

    async def run(self, feed: Feed) -> None:
        settings = self._settings
        for directory in (settings.pools, settings.instances):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        storage = DirDriver(settings, settings.state / "made")
        try:
            storage.clean(KINDS.parse(feed.desired()).of(StoragePool))
        except Refused as error:  # a slice of an older version; nothing is cleaned until Kahuna sends a new one
            log.warning("slice.refused", reason=str(error))
        sources = Sources(settings.import_dir, settings.import_hosts)
        imports = Imports(
            storage,
            sources,
            lambda template, reason: reconciler.background_ended(template, reason),
            lambda template: reconciler.background_progressed(template, importing(imports.percent[template.id])),
        )
        hypervisor = self._hypervisor = Hypervisor(settings.libvirt_uri, lambda: reconciler.wake())
        services = MetadataServices(
            Server(lambda: reconciler.desired, Tokens(load_key(settings.state / "metadata.key")))
        )
        reconciler = Reconciler(
            settings.agent, KINDS, settings, feed, LocalHost(settings, hypervisor, storage, imports, services)
        )
        tasks = Tasks()
        tasks.spawn(console.trim(settings.instances), "console histories")
        try:
            await reconciler.run()
        finally:
            await tasks.close()
            await services.close()
            await imports.close()
            await hypervisor.close()
