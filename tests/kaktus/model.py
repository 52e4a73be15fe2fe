"""A host that is a few dictionaries: what steps do to it, without doing anything."""

from dataclasses import replace
from ipaddress import IPv4Network

from agent_kaktus import names, seed, steps
from agent_kaktus.actual import Actual, Domain, Image, Link, PoolSeen, Power
from agent_kaktus.compute import domain
from agent_kaktus.desired import Card, Desired
from agent_kaktus.memory import Memory
from agent_kaktus.network import guard, wall
from agent_kaktus.plan import plan
from agent_kaktus.site import Site
from agent_kaktus.view import Plan, View
from kowa.v2 import instance_pb2

ROUNDS = 30


class Host:
    """Looks like a host, and can be told to do steps."""

    def __init__(self, site: Site, *, obeys: bool = True) -> None:
        self.site = site
        self.obeys = obeys  # guests shut down when asked to
        self.now = 1000.0
        self.memory = Memory()
        self.domains: dict[str, Domain] = {}
        self.others: dict[str, Domain] = {}
        self.pools: dict[str, PoolSeen] = {}
        self.images: dict[str, Image] = {}
        self.made: set[str] = set()
        self.links: dict[str, Link] = {}
        self.guards: dict[str, str] = {}
        self.services: dict[str, frozenset[IPv4Network]] = {}
        self.wall = ""
        self.seeds: dict[str, str] = {}
        self.plugs: dict[str, str] = {}  # tap -> its bridge

    def look(self) -> Actual:
        return Actual(
            domains=dict(self.domains),
            others=dict(self.others),
            pools=dict(self.pools),
            images=dict(self.images),
            made=frozenset(self.made),
            links={name: self._with_ports(link) for name, link in self.links.items()},
            guards=dict(self.guards),
            services=dict(self.services),
            wall=self.wall,
            seeds=dict(self.seeds),
        )

    def plan(self, desired: Desired) -> Plan:
        return plan(View(self.site, desired, self.look(), self.memory, self.now))

    def restart_agent(self) -> None:
        """It forgets, and takes its services with it; of their ports the kernel may have some still."""
        self.memory = Memory()
        self.services.clear()

    def converge(self, desired: Desired) -> Plan:
        """Until nothing is left to do; time passes when there is something to wait for."""
        for _ in range(ROUNDS):
            found = self.plan(desired)
            if not found.steps and not self.memory.stopping:
                return found
            for step in found.steps:
                self.do(step)
            self.pass_time(desired)
        raise AssertionError(f"does not come to rest: {[str(step) for step in found.steps]}")

    def pass_time(self, desired: Desired) -> None:
        """Downloads end, and so does patience with guests that do not shut down."""
        for id_ in list(self.memory.importing):
            template = desired.templates[id_]
            self.images[id_] = Image(id_, template.pool, "qcow2", 1 << 20)
            del self.memory.importing[id_]
        for id_ in list(self.memory.stopping):
            found = self.domains.get(id_)
            is_wanted = id_ in desired.machines and desired.machines[id_].power != instance_pb2.POWER_STOPPED
            if found is None or not found.is_on or is_wanted:
                del self.memory.stopping[id_]
        self.now += self.site.shutdown_limit

    def do(self, step: steps.Step) -> None:
        match step:
            case steps.MakePool():
                self.pools[step.pool.id] = PoolSeen(1 << 40, 1 << 39)
                self.made.add(step.pool.id)
            case steps.RemovePool():
                self.pools.pop(step.pool.id, None)
                self.made.discard(step.pool.id)
            case steps.ImportTemplate():
                self.memory.importing[step.template.id] = 0
            case steps.StopImport():
                self.memory.importing.pop(step.template.id, None)
            case steps.RemoveTemplate():
                del self.images[step.template.id]
            case steps.CreateVolume():
                backing = step.backing.file if step.backing else ""
                volume = step.volume
                self.images[volume.id] = Image(volume.id, volume.pool, "qcow2", volume.size, backing=backing)
                self.made.add(volume.id)
            case steps.RecordVolume():
                self.made.add(step.volume.id)
            case steps.GrowVolume():
                image = self.images[step.volume.id]
                self.images[image.id] = replace(image, size=step.volume.size)
            case steps.RemoveVolume():
                self.images.pop(step.volume.id, None)
                self.made.discard(step.volume.id)
            case steps.MakeBridge():
                self._plug(step.segment.bridge, is_bridge=True)
            case steps.SetBridge():
                link = self.links[step.segment.bridge]
                held = (link.addresses | set(step.add)) - set(step.drop)
                self.links[link.name] = replace(link, is_up=True, addresses=frozenset(held))
            case steps.RemoveBridge():
                assert self._with_ports(self.links.pop(step.segment.bridge)).ports == 0
            case steps.MakeService():
                self._serve(step)
            case steps.RemoveService():
                self.services.pop(step.segment.id, None)
                self.links.pop(step.segment.port, None)
                self.wall = self.wall if self.services else ""
            case steps.RemoveWall():
                assert not self.services
                self.wall = ""
            case steps.Unguard():
                for tap in step.taps:
                    assert tap not in self.links
                    del self.guards[tap]
            case steps.Guard():
                for card in step.cards:
                    self._guard(card)
            case _:
                self._do_to_machine(step)

    def _do_to_machine(self, step: steps.Step) -> None:
        id_ = step.machine.id  # type: ignore[attr-defined]
        found = self.domains.get(id_)
        match step:
            case steps.WriteSeed():
                self.seeds[id_] = seed.digest(self.site, step.machine, step.outfit)
            case steps.RemoveSeed():
                del self.seeds[id_]
            case steps.Define():
                self._define(step, found)
            case steps.Start():
                assert found is not None
                assert found.mark is not None
                for tap in found.taps:
                    self._plug(tap)
                self.domains[id_] = replace(found, power=Power.PAUSED, running_digest=found.mark.digest)
            case steps.Resume():
                assert found is not None
                assert all(tap in self.guards for tap in found.taps), "a guest runs unguarded"
                self.domains[id_] = replace(found, power=Power.RUNNING)
            case steps.Suspend():
                assert found is not None
                self.domains[id_] = replace(found, power=Power.PAUSED)
            case steps.Shutdown():
                self.memory.stopping.setdefault(id_, self.now)
                if self.obeys:
                    self.switch_off(id_, left=True)
            case steps.CutPower():
                self.switch_off(id_, left=False)
            case steps.Undefine():
                assert found is not None
                assert not found.is_on, "still runs"
                del self.domains[id_]
            case steps.Note():
                assert found is not None
                self.domains[id_] = replace(found, mark=step.mark)

    def _define(self, step: steps.Define, found: Domain | None) -> None:
        id_ = step.machine.id
        assert id_ not in self.others
        before = found or Domain(id_, names.domain(id_))
        disks = frozenset(str(self.site.volume(volume.pool, volume.id)) for volume in step.outfit.disks)
        taps = frozenset(port.card.tap for port in step.outfit.ports)
        self.plugs |= {port.card.tap: port.segment.bridge for port in step.outfit.ports}
        assert step.mark.digest == domain.digest(self.site, step.machine, step.outfit)
        self.domains[id_] = replace(before, mark=step.mark, persistent=True, disks=disks, taps=taps)

    def switch_off(self, id_: str, *, left: bool) -> None:
        found = self.domains[id_]
        for tap in found.taps:
            self.links.pop(tap, None)
        self.domains[id_] = replace(found, power=Power.OFF, left=left, running_digest="")

    def _plug(self, name: str, *, is_bridge: bool = False) -> None:
        self.links[name] = Link(name, index=100 + len(self.links), is_bridge=is_bridge)

    def _with_ports(self, link: Link) -> Link:
        ports = sum(self.plugs.get(name) == link.name for name in self.links)
        return replace(link, ports=ports, bridge=self.plugs.get(link.name, ""))

    def _serve(self, step: steps.MakeService) -> None:
        assert self.links[step.segment.bridge].is_bridge
        self.wall = wall.SEAL
        self.services[step.segment.id] = step.networks
        self.plugs[step.segment.port] = step.segment.bridge
        self._plug(step.segment.port)

    def _guard(self, card: Card) -> None:
        assert card.tap in self.links
        self.guards[card.tap] = guard.seal(card, self.links[card.tap].index)
