"""The steps a plan is made of. Each can be repeated; its text is what tests and logs show."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import ClassVar

from agent_kaktus.actual import Image, Mark
from agent_kaktus.desired import Card, Machine, Outfit, Pool, Segment, Template, Volume


@dataclass(frozen=True, slots=True)
class Step:
    """One change of the host."""

    done: ClassVar[str]  # the crash point behind it


@dataclass(frozen=True, slots=True)
class MakePool(Step):
    done: ClassVar[str] = "pool.made"
    pool: Pool

    def __str__(self) -> str:
        return f"make pool {self.pool.name}"


@dataclass(frozen=True, slots=True)
class RemovePool(Step):
    done: ClassVar[str] = "pool.removed"
    pool: Pool

    def __str__(self) -> str:
        return f"remove pool {self.pool.name}"


@dataclass(frozen=True, slots=True)
class ImportTemplate(Step):
    """Begins it; it goes on beside everything else."""

    done: ClassVar[str] = "import.begun"
    template: Template

    def __str__(self) -> str:
        return f"import {self.template.name}"


@dataclass(frozen=True, slots=True)
class StopImport(Step):
    done: ClassVar[str] = "import.stopped"
    template: Template

    def __str__(self) -> str:
        return f"stop importing {self.template.name}"


@dataclass(frozen=True, slots=True)
class RemoveTemplate(Step):
    done: ClassVar[str] = "template.removed"
    template: Template
    image: Image

    def __str__(self) -> str:
        return f"remove template {self.template.name}"


@dataclass(frozen=True, slots=True)
class CreateVolume(Step):
    done: ClassVar[str] = "volume.created"
    volume: Volume
    backing: Image | None

    def __str__(self) -> str:
        return f"create volume {self.volume.name}"


@dataclass(frozen=True, slots=True)
class RecordVolume(Step):
    """Remembers that the file was made, so that it is never made anew."""

    done: ClassVar[str] = "volume.recorded"
    volume: Volume

    def __str__(self) -> str:
        return f"record volume {self.volume.name}"


@dataclass(frozen=True, slots=True)
class GrowVolume(Step):
    done: ClassVar[str] = "volume.grown"
    volume: Volume
    domain: str  # that has it open, if any

    def __str__(self) -> str:
        return f"grow volume {self.volume.name}" + (" live" if self.domain else "")


@dataclass(frozen=True, slots=True)
class RemoveVolume(Step):
    done: ClassVar[str] = "volume.removed"
    volume: Volume
    pool: str  # where it was found

    def __str__(self) -> str:
        return f"remove volume {self.volume.name}"


@dataclass(frozen=True, slots=True)
class MakeBridge(Step):
    done: ClassVar[str] = "bridge.made"
    segment: Segment
    mac: str

    def __str__(self) -> str:
        return f"make bridge {self.segment.name}"


@dataclass(frozen=True, slots=True)
class SetBridge(Step):
    done: ClassVar[str] = "bridge.set"
    segment: Segment
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    def __str__(self) -> str:
        changes = [f"+{address}" for address in self.add] + [f"-{address}" for address in self.drop]
        return " ".join([f"set bridge {self.segment.name}", *(changes or ["up"])])


@dataclass(frozen=True, slots=True)
class RemoveBridge(Step):
    done: ClassVar[str] = "bridge.removed"
    segment: Segment

    def __str__(self) -> str:
        return f"remove bridge {self.segment.name}"


@dataclass(frozen=True, slots=True)
class MakeService(Step):
    """The metadata service of a vnet, with what keeps it apart; one that is there gets what it lacks."""

    done: ClassVar[str] = "service.made"
    segment: Segment
    networks: frozenset[IPv4Network]

    def __str__(self) -> str:
        return f"make service {self.segment.name}"


@dataclass(frozen=True, slots=True)
class RemoveService(Step):
    done: ClassVar[str] = "service.removed"
    segment: Segment

    def __str__(self) -> str:
        return f"remove service {self.segment.name}"


@dataclass(frozen=True, slots=True)
class RemoveWall(Step):
    """Removes the rules around metadata services when there is none."""

    done: ClassVar[str] = "wall.removed"

    def __str__(self) -> str:
        return "remove wall"


@dataclass(frozen=True, slots=True)
class Unguard(Step):
    """Removes the rules of taps that are gone."""

    done: ClassVar[str] = "guard.removed"
    taps: tuple[str, ...]

    def __str__(self) -> str:
        return f"unguard {' '.join(self.taps)}"


@dataclass(frozen=True, slots=True)
class WriteSeed(Step):
    done: ClassVar[str] = "seed.written"
    machine: Machine
    outfit: Outfit

    def __str__(self) -> str:
        return f"seed {self.machine.name}"


@dataclass(frozen=True, slots=True)
class RemoveSeed(Step):
    """And the console log with it."""

    done: ClassVar[str] = "seed.removed"
    machine: Machine

    def __str__(self) -> str:
        return f"remove seed {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Define(Step):
    done: ClassVar[str] = "domain.defined"
    machine: Machine
    outfit: Outfit
    mark: Mark
    again: bool

    def __str__(self) -> str:
        return f"{'redefine' if self.again else 'define'} {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Start(Step):
    """Paused: no instruction of the guest is run yet."""

    done: ClassVar[str] = "domain.started"
    machine: Machine
    again: bool  # it fell over by itself

    def __str__(self) -> str:
        return f"start {self.machine.name}" + (" again" if self.again else "")


@dataclass(frozen=True, slots=True)
class Guard(Step):
    done: ClassVar[str] = "guard.put"
    machine: Machine
    cards: tuple[Card, ...]

    def __str__(self) -> str:
        return f"guard {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Resume(Step):
    done: ClassVar[str] = "domain.resumed"
    machine: Machine

    def __str__(self) -> str:
        return f"resume {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Suspend(Step):
    done: ClassVar[str] = "domain.suspended"
    machine: Machine

    def __str__(self) -> str:
        return f"suspend {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Shutdown(Step):
    """Asks the guest; it takes its time."""

    done: ClassVar[str] = "domain.asked"
    machine: Machine

    def __str__(self) -> str:
        return f"shutdown {self.machine.name}"


@dataclass(frozen=True, slots=True)
class CutPower(Step):
    done: ClassVar[str] = "domain.cut"
    machine: Machine

    def __str__(self) -> str:
        return f"cut power {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Undefine(Step):
    done: ClassVar[str] = "domain.undefined"
    machine: Machine

    def __str__(self) -> str:
        return f"undefine {self.machine.name}"


@dataclass(frozen=True, slots=True)
class Note(Step):
    """Writes down in the domain's mark at which generation it ran, was asked to stop, or switched itself off."""

    done: ClassVar[str] = "domain.noted"
    machine: Machine
    mark: Mark

    def __str__(self) -> str:
        marks = {self.mark.rests: "rests", self.mark.asked: "stops"}
        return f"note {self.machine.name} {marks.get(self.machine.generation, 'runs')}"
