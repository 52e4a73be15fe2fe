"""What the agent remembers between two looks, and forgets when it ends: attempts, deadlines, what was given up."""

from dataclasses import dataclass, field

from agent_kaktus.desired import Thing

MOST_RESTARTS = 5
RESTART_WINDOW = 600.0
MOST_ATTEMPTS = 5  # then it is reported as failed, and tried on
LONGEST_PAUSE = 60.0
MOST_REPEATS = 3  # of a step that is done and yet needed again at once

Generation = tuple[str, int]


@dataclass(slots=True)
class Trouble:
    """Steps that fail, and when they are tried again."""

    reason: str
    attempts: int
    until: float


@dataclass(slots=True)
class Memory:
    """Plans read it, the loop writes it. Times are the loop's clock."""

    importing: dict[str, int] = field(default_factory=dict)  # template -> percent
    stopping: dict[str, float] = field(default_factory=dict)  # machine -> when it was asked to shut down
    restarts: dict[Generation, tuple[float, ...]] = field(default_factory=dict)
    given_up: dict[Generation, str] = field(default_factory=dict)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)  # object -> generation
    repeats: dict[str, tuple[str, int]] = field(default_factory=dict)  # object -> its last steps, how often

    def why_given_up(self, thing: Thing) -> str:
        return self.given_up.get((thing.id, thing.generation), "")

    def restarted(self, machine: Thing) -> tuple[float, ...]:
        return self.restarts.get((machine.id, machine.generation), ())

    def crashes_too_often(self, machine: Thing) -> bool:
        """Stays so until its generation moves: no clock is asked."""
        last = self.restarted(machine)[-MOST_RESTARTS:]
        return len(last) == MOST_RESTARTS and last[-1] - last[0] <= RESTART_WINDOW

    def restarts_lately(self, machine: Thing, now: float) -> int:
        return sum(now - time <= RESTART_WINDOW for time in self.restarted(machine))

    def note_restart(self, machine: Thing, now: float) -> None:
        self.restarts[machine.id, machine.generation] = (*self.restarted(machine), now)[-MOST_RESTARTS:]

    def note_running(self, machine: Thing, now: float) -> None:
        """One that has run ever since the window of its last restart begins anew."""
        if self.restarted(machine) and not self.restarts_lately(machine, now):
            del self.restarts[machine.id, machine.generation]

    def note_trouble(self, id_: str, reason: str, now: float) -> Trouble:
        attempts = self.troubles[id_].attempts + 1 if id_ in self.troubles else 1
        self.troubles[id_] = Trouble(reason, attempts, now + _pause(attempts))
        return self.troubles[id_]

    def note_done(self, id_: str, steps: str) -> int:
        """How often in a row an object has needed these very steps."""
        last, times = self.repeats.get(id_, ("", 0))
        self.repeats[id_] = (steps, times + 1 if steps == last else 1)
        return self.repeats[id_][1]

    def is_paused(self, id_: str, now: float) -> bool:
        return id_ in self.troubles and now < self.troubles[id_].until

    def settle(self, id_: str) -> None:
        """An object needs nothing now."""
        self.troubles.pop(id_, None)
        self.repeats.pop(id_, None)

    def keep_only(self, alive: set[str]) -> None:
        """Forgets what is about objects that are no longer in the slice."""
        for notes in (self.stopping, self.troubles, self.applied, self.repeats):
            for id_ in notes.keys() - alive:
                del notes[id_]
        for counted in (self.restarts, self.given_up):
            for key in [key for key in counted if key[0] not in alive]:
                del counted[key]

    def next_deadline(self, now: float, shutdown_limit: float) -> float:
        """Seconds until something is due. What was due before is being done, or waits for something else."""
        due = [trouble.until for trouble in self.troubles.values()]
        due += [asked + shutdown_limit for asked in self.stopping.values()]
        return max(min((at for at in due if at > now), default=now + LONGEST_PAUSE) - now, 0.05)


def _pause(attempts: int) -> float:
    """Twice as long each time. The exponent has a bound, for what fails for days."""
    return min(2.0 ** min(attempts - 1, 10), LONGEST_PAUSE)
