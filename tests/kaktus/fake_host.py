"""A fake host, kept in dictionaries, with a fake driver for each part: steps change the dictionaries only."""

from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any
from xml.etree import ElementTree

from agent_kaktus import names
from agent_kaktus.actual import Actual, Domain, Image, Link, Mark, PoolSpace, Power
from agent_kaktus.compute import domain, seed
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.compute.instance import PowerNotes
from agent_kaktus.kind import View
from agent_kaktus.kinds import KINDS
from agent_kaktus.network import nftables
from agent_kaktus.network.adapter import Adapter
from agent_kaktus.network.vnet import Vnet
from agent_kaktus.settings import Settings
from agent_kaktus.storage.dir import disk_source
from agent_kaktus.storage.template import Template
from kowa.runtime.desired import Desired
from kowa.runtime.errors import StepFailed
from kowa.runtime.notes import Notes
from kowa.runtime.plan import plan
from kowa.runtime.verdict import Step, Verdict

MAX_ROUNDS = 30


class FakeHost:
    """Observed like a real host, and steps can be carried out on it."""

    def __init__(self, config: Settings, *, obeys: bool = True) -> None:
        self.config = config
        self.obeys = obeys  # whether guests shut down on request
        self.now = 1000.0
        self.notes = Notes()
        self.domains: dict[str, Domain] = {}
        self.foreign_domains: dict[str, Domain] = {}
        self.pools: dict[str, PoolSpace] = {}
        self.images: dict[str, Image] = {}
        self.created: set[str] = set()  # ids of pools and volumes
        self.importing: dict[str, int] = {}  # template -> percent
        self.links: dict[str, Link] = {}
        self.filters: dict[str, str] = {}  # tap -> fingerprint
        self.services: dict[str, frozenset[IPv4Network]] = {}  # vnet -> networks
        self.metadata_fingerprint = ""
        self.seed_fingerprints: dict[str, str] = {}  # instance -> fingerprint
        self.plugs: dict[str, str] = {}  # device -> its bridge
        self.hypervisor = FakeHypervisor(self)
        self.storage = FakeStorage(self)
        self.imports = FakeImports(self)
        self.seeds = FakeSeeds(self)
        self.bridges = FakeBridges(self)
        self.tap_filters = FakeTapFilters(self)
        self.metadata_services = FakeMetadataServices(self)
        self.metadata_filter = FakeMetadataFilter(self)

    @property
    def power_notes(self) -> PowerNotes:
        return self.notes.of(PowerNotes)

    def observe(self) -> Actual:
        return Actual(
            domains=dict(self.domains),
            foreign_domains=dict(self.foreign_domains),
            pools=dict(self.pools),
            images=dict(self.images),
            created=frozenset(self.created),
            importing=self.importing,
            links={name: self.with_ports(link) for name, link in self.links.items()},
            tap_filters=dict(self.filters),
            metadata_services=dict(self.services),
            metadata_filter=self.metadata_fingerprint,
            seeds=dict(self.seed_fingerprints),
        )

    def view(self, desired: Desired) -> View:
        return View(KINDS, self.config, desired, self.observe(), self.notes, self.now)

    def plan(self, desired: Desired) -> dict[str, Verdict]:
        verdicts = plan(self.view(desired))
        broken = [verdict.fails for verdict in verdicts.values() if "can't be planned" in verdict.fails]
        assert not broken, broken
        return verdicts

    def restart_agent(self) -> None:
        """The agent's notes and metadata services are lost; the kernel may still have some of their ports."""
        self.notes = Notes()
        self.services.clear()

    def converge(self, desired: Desired) -> dict[str, Verdict]:
        """Plans and carries out steps until none is left; time passes between the rounds."""
        for _ in range(MAX_ROUNDS):
            found = self.plan(desired)
            steps = steps_of(found)
            if not steps and not self.power_notes.stopping:
                return found
            for step in steps:
                self.do(step)
            self.pass_time(desired)
        raise AssertionError(f"does not come to rest: {[str(step) for step in steps]}")

    def pass_time(self, desired: Desired) -> None:
        """Imports end, and so does the timeout of guests that do not shut down."""
        for id_ in list(self.importing):
            template = desired.of(Template)[id_]
            self.images[id_] = Image(id_, template.pool, "qcow2", 1 << 20)
            del self.importing[id_]
        instances = desired.of(Instance)
        for id_ in list(self.power_notes.stopping):
            found = self.domains.get(id_)
            is_wanted = id_ in instances and not instances[id_].is_to_stop
            if found is None or not found.is_on or is_wanted:
                del self.power_notes.stopping[id_]
        self.now += self.config.shutdown_limit

    def do(self, step: Step) -> None:
        step.when_due(self.notes, self.now)
        run_without_waiting(step.do(self))

    def switch_off(self, id_: str, *, by_guest: bool) -> None:
        found = self.domains[id_]
        for tap in found.taps:
            self.links.pop(tap, None)
        self.domains[id_] = replace(found, power=Power.OFF, powered_off=by_guest, running_fingerprint="")

    def add_link(self, name: str, *, is_bridge: bool = False, mac: str = "") -> None:
        self.links[name] = Link(name, index=100 + len(self.links), is_bridge=is_bridge, mac=mac)

    def with_ports(self, link: Link) -> Link:
        ports = sum(self.plugs.get(name) == link.name for name in self.links)
        return replace(link, ports=ports, bridge=self.plugs.get(link.name, ""))


def steps_of(verdicts: Mapping[str, Verdict]) -> list[Step]:
    """The steps of all verdicts."""
    return [step for verdict in verdicts.values() for step in verdict.steps]


def run_without_waiting(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a step on a fake host waits for something")


@dataclass
class FakeHypervisor:
    host: FakeHost

    async def define(self, instance: str, definition: str) -> None:
        found = ElementTree.fromstring(definition)  # noqa: S314 - our own
        mark = domain.mark_of(found)
        assert mark is not None
        assert mark.id == instance
        assert mark.id not in self.host.foreign_domains
        for interface in found.findall("devices/interface"):
            source, target = interface.find("source"), interface.find("target")
            assert source is not None
            assert target is not None
            self.host.plugs[target.attrib["dev"]] = source.attrib["bridge"]
        before = self.host.domains.get(mark.id) or Domain(mark.id, names.domain(mark.id))
        disks, taps = domain.disks_of(found), domain.taps_of(found)
        self.host.domains[mark.id] = replace(before, mark=mark, persistent=True, disks=disks, taps=taps)

    async def start(self, instance: str) -> None:
        found = self.host.domains[instance]
        assert found.mark is not None
        for tap in found.taps:
            self.host.add_link(tap)
        self._change(instance, power=Power.PAUSED, running_fingerprint=found.mark.fingerprint)

    async def resume(self, instance: str) -> None:
        self._check_running(instance)
        taps = self.host.domains[instance].taps
        assert all(tap in self.host.filters for tap in taps), "a guest runs without filters on its taps"
        self._change(instance, power=Power.RUNNING)

    async def suspend(self, instance: str) -> None:
        self._check_running(instance)
        self._change(instance, power=Power.PAUSED)

    async def shutdown(self, instance: str) -> None:
        if self.host.obeys:
            self.host.switch_off(instance, by_guest=True)

    async def cut_power(self, instance: str) -> None:
        self.host.switch_off(instance, by_guest=False)

    async def undefine(self, instance: str) -> None:
        assert not self.host.domains[instance].is_on, "still runs"
        del self.host.domains[instance]

    async def set_mark(self, instance: str, mark: Mark) -> None:
        self._change(instance, mark=mark)

    async def resize(self, instance: str, disk: str, size: int) -> None:
        found = self.host.domains[instance]
        assert disk in found.disks
        for id_, image in self.host.images.items():
            if image.disk_key == disk:
                self.host.images[id_] = replace(image, size=size)

    def _check_running(self, instance: str) -> None:
        if not self.host.domains[instance].is_on:
            raise StepFailed("domain is not running")

    def _change(self, instance: str, **fields: Any) -> None:
        self.host.domains[instance] = replace(self.host.domains[instance], **fields)


@dataclass
class FakeStorage:
    host: FakeHost

    async def create_pool(self, pool: str) -> None:
        self.host.pools[pool] = PoolSpace(1 << 40, 1 << 39)
        self.host.created.add(pool)

    async def remove_pool(self, pool: str) -> None:
        self.host.pools.pop(pool, None)
        self.host.created.discard(pool)

    async def create_volume(self, pool: str, volume: str, size: int, backing: Image | None) -> None:
        key = disk_source(self.host.config, pool, volume).key
        file = backing.file if backing else ""
        self.host.images[volume] = Image(volume, pool, "qcow2", size, backing=file, disk_key=key)
        self.host.created.add(volume)

    async def record(self, volume: str) -> None:
        self.host.created.add(volume)

    async def grow(self, pool: str, volume: str, size: int) -> None:
        self.host.images[volume] = replace(self.host.images[volume], size=size)

    async def remove(self, pool: str, id_: str) -> None:
        self.host.images.pop(id_, None)
        self.host.created.discard(id_)

    def contains(self, pool: str, id_: str) -> bool:
        return id_ in self.host.images


@dataclass
class FakeImports:
    host: FakeHost

    async def start(self, template: Template) -> None:
        self.host.importing[template.id] = 0

    async def stop(self, template: str) -> None:
        self.host.importing.pop(template, None)


@dataclass
class FakeSeeds:
    host: FakeHost

    async def write(self, instance: Instance, devices: Devices) -> None:
        self.host.seed_fingerprints[instance.id] = seed.fingerprint(self.host.config, instance, devices)

    async def remove(self, instance: str) -> None:
        del self.host.seed_fingerprints[instance]


@dataclass
class FakeBridges:
    host: FakeHost

    async def observe(self) -> dict[str, Link]:
        return self.host.links

    async def create(self, bridge: str, mac: str) -> None:
        self.host.add_link(bridge, is_bridge=True, mac=mac)

    async def change(self, bridge: str, add: Iterable[str], drop: Iterable[str]) -> None:
        link = self.host.links[bridge]
        addresses = (link.addresses | set(add)) - set(drop)
        self.host.links[bridge] = replace(link, is_up=True, addresses=frozenset(addresses))

    async def remove(self, bridge: str) -> None:
        assert self.host.with_ports(self.host.links.pop(bridge)).ports == 0


@dataclass
class FakeTapFilters:
    host: FakeHost

    async def put(self, adapter: Adapter, index: int) -> None:
        assert self.host.links[adapter.tap].index == index
        self.host.filters[adapter.tap] = nftables.tap_fingerprint(adapter, index)

    async def remove(self, taps: Iterable[str]) -> None:
        for tap in taps:
            assert tap not in self.host.links
            del self.host.filters[tap]


@dataclass
class FakeMetadataServices:
    host: FakeHost

    async def serve(self, vnet: Vnet, networks: frozenset[IPv4Network], metadata_filter: "FakeMetadataFilter") -> None:
        assert self.host.links[vnet.bridge].is_bridge
        await metadata_filter.put()
        self.host.services[vnet.id] = networks
        self.host.plugs[vnet.metadata_port] = vnet.bridge
        self.host.add_link(vnet.metadata_port)

    async def remove(self, vnet: Vnet, metadata_filter: "FakeMetadataFilter") -> None:
        self.host.services.pop(vnet.id, None)
        self.host.links.pop(vnet.metadata_port, None)
        if not self.host.services:
            await metadata_filter.remove()

    async def remove_unused_filter(self, metadata_filter: "FakeMetadataFilter") -> None:
        if not self.host.services:
            await metadata_filter.remove()


@dataclass
class FakeMetadataFilter:
    host: FakeHost

    async def put(self) -> None:
        self.host.metadata_fingerprint = nftables.METADATA_FINGERPRINT

    async def remove(self) -> None:
        assert not self.host.services
        self.host.metadata_fingerprint = ""
