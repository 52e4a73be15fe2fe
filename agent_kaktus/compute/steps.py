"""The steps of instances: definition, power, seed; and what is remembered of their power between two observations."""

from collections.abc import Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_kaktus.actual import Mark
from agent_kaktus.compute import domain
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.memory import Generation, Memory
from agent_kaktus.network.adapter import Adapter, put_filters
from agent_kaktus.plan import ObjectStep

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost

MAX_RESTARTS = 5
RESTART_WINDOW_S = 600.0


@dataclass(slots=True)
class PowerNotes:
    """When instances were asked to stop, and restarted after a crash. Times are seconds of the loop's clock."""

    stopping: dict[str, float] = field(default_factory=dict)  # instance -> when it was asked to shut down
    restarts: dict[Generation, tuple[float, ...]] = field(default_factory=dict)

    def restarts_of(self, instance: Instance) -> tuple[float, ...]:
        """When its present generation was restarted after a crash."""
        return self.restarts.get((instance.id, instance.generation), ())

    def crashes_too_often(self, instance: Instance) -> bool:
        """Stays true until its generation changes, however long ago the crashes are."""
        last = self.restarts_of(instance)[-MAX_RESTARTS:]
        return len(last) == MAX_RESTARTS and last[-1] - last[0] <= RESTART_WINDOW_S

    def count_recent_restarts(self, instance: Instance, now: float) -> int:
        return sum(now - time <= RESTART_WINDOW_S for time in self.restarts_of(instance))

    def note_restart(self, instance: Instance, now: float) -> None:
        self.restarts[instance.id, instance.generation] = (*self.restarts_of(instance), now)[-MAX_RESTARTS:]

    def note_running(self, instance: Instance, now: float) -> None:
        """Clears the restarts of an instance that has run for a whole RESTART_WINDOW_S."""
        if self.restarts_of(instance) and not self.count_recent_restarts(instance, now):
            del self.restarts[instance.id, instance.generation]

    def note_stopping(self, instance: Instance, now: float) -> None:
        """From now on an instance that is to stop has its time to do so."""
        if instance.is_to_stop:
            self.stopping.setdefault(instance.id, now)

    def keep_only(self, ids: Set[str]) -> None:
        for id_ in self.stopping.keys() - ids:
            del self.stopping[id_]
        for key in [key for key in self.restarts if key[0] not in ids]:
            del self.restarts[key]


@dataclass(frozen=True, slots=True)
class WriteSeed(ObjectStep[Instance]):
    verb = "seed"
    devices: Devices

    async def do(self, host: "LocalHost") -> None:
        await host.seeds.write(self.wanted, self.devices)


class RemoveSeed(ObjectStep[Instance]):
    """Removes the seed and the console log."""

    verb = "remove seed"

    async def do(self, host: "LocalHost") -> None:
        await host.seeds.remove(self.wanted.id)


@dataclass(frozen=True, slots=True)
class Define(ObjectStep[Instance]):
    devices: Devices
    mark: Mark
    again: bool

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.define(domain.definition(host.config, self.wanted, self.devices, self.mark))

    def __str__(self) -> str:
        return f"{'redefine' if self.again else 'define'} {self.wanted.name}"


@dataclass(frozen=True, slots=True)
class Start(ObjectStep[Instance]):
    """Starts it paused: the guest runs only once its taps are filtered."""

    again: bool  # it fell over by itself

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.start(self.wanted.id)

    def after(self, memory: Memory, now: float) -> None:
        if self.again:
            memory.of(PowerNotes).note_restart(self.wanted, now)

    def __str__(self) -> str:
        return f"start {self.wanted.name}" + (" again" if self.again else "")


@dataclass(frozen=True, slots=True)
class FilterTaps(ObjectStep[Instance]):
    """Before the guest runs, so that it can send with its own addresses only."""

    verb = "filter taps of"
    adapters: tuple[Adapter, ...]

    async def do(self, host: "LocalHost") -> None:
        await put_filters(host, self.adapters)


class DomainStep(ObjectStep[Instance]):
    """What the hypervisor does to a domain; its verb is the name of that."""

    async def do(self, host: "LocalHost") -> None:
        await getattr(host.hypervisor, self.verb.replace(" ", "_"))(self.wanted.id)


class Resume(DomainStep):
    verb = "resume"

    def before(self, memory: Memory, now: float) -> None:
        """The time of one that can't be asked to stop before it runs out like that of one that does not listen."""
        memory.of(PowerNotes).note_stopping(self.wanted, now)


class Suspend(DomainStep):
    verb = "suspend"


class Shutdown(DomainStep):
    """Asks the guest to shut down; it may take up to shutdown_limit, then power is cut."""

    verb = "shutdown"

    def before(self, memory: Memory, now: float) -> None:
        memory.of(PowerNotes).note_stopping(self.wanted, now)


class CutPower(DomainStep):
    verb = "cut power"


class Undefine(DomainStep):
    verb = "undefine"


@dataclass(frozen=True, slots=True)
class SetMark(ObjectStep[Instance]):
    """Writes into the domain's mark at which generation it ran, was asked to stop, or was switched off by its guest."""

    mark: Mark

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.set_mark(self.wanted.id, self.mark)

    def __str__(self) -> str:
        words = {self.mark.powered_off_at: "powered off", self.mark.stop_requested_at: "stopping"}
        return f"mark {self.wanted.name} {words.get(self.wanted.generation, 'running')}"
