"""The steps of instances: definition, power, seed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_kaktus.actual import Mark
from agent_kaktus.compute import domain
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.compute.notes import PowerNotes
from agent_kaktus.memory import Memory
from agent_kaktus.network.adapter import Adapter, put_filters
from agent_kaktus.plan import ObjectStep

if TYPE_CHECKING:
    from agent_kaktus.host import LocalHost


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


class Resume(ObjectStep[Instance]):
    verb = "resume"

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.resume(self.wanted.id)

    def before(self, memory: Memory, now: float) -> None:
        """The time of one that can't be asked to stop before it runs out like that of one that does not listen."""
        note_stopping(self.wanted, memory, now)


class Suspend(ObjectStep[Instance]):
    verb = "suspend"

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.suspend(self.wanted.id)


class Shutdown(ObjectStep[Instance]):
    """Asks the guest to shut down; it may take up to shutdown_limit, then power is cut."""

    verb = "shutdown"

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.shutdown(self.wanted.id)

    def before(self, memory: Memory, now: float) -> None:
        note_stopping(self.wanted, memory, now)


class CutPower(ObjectStep[Instance]):
    verb = "cut power"

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.cut_power(self.wanted.id)


class Undefine(ObjectStep[Instance]):
    verb = "undefine"

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.undefine(self.wanted.id)


@dataclass(frozen=True, slots=True)
class SetMark(ObjectStep[Instance]):
    """Writes into the domain's mark at which generation it ran, was asked to stop, or was switched off by its guest."""

    mark: Mark

    async def do(self, host: "LocalHost") -> None:
        await host.hypervisor.set_mark(self.wanted.id, self.mark)

    def __str__(self) -> str:
        words = {self.mark.powered_off_at: "powered off", self.mark.stop_asked_at: "stopping"}
        return f"mark {self.wanted.name} {words.get(self.wanted.generation, 'running')}"


def note_stopping(instance: Instance, memory: Memory, now: float) -> None:
    """From now on an instance that is to stop has its time to do so."""
    if instance.is_to_stop:
        memory.of(PowerNotes).stopping.setdefault(instance.id, now)
