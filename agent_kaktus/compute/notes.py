"""What the agent remembers of instances' power between two looks: when they were asked to stop, and restarts."""

from collections.abc import Set
from dataclasses import dataclass, field

from agent_kaktus.memory import Generation, Notes
from kowa.runtime.desired import DesiredObject

MAX_RESTARTS = 5
RESTART_WINDOW_S = 600.0


@dataclass(slots=True)
class PowerNotes(Notes):
    """Times are seconds of the loop's clock."""

    stopping: dict[str, float] = field(default_factory=dict)  # instance -> when it was asked to shut down
    restarts: dict[Generation, tuple[float, ...]] = field(default_factory=dict)

    def restarts_of(self, instance: DesiredObject) -> tuple[float, ...]:
        """When its present generation was restarted after a crash."""
        return self.restarts.get((instance.id, instance.generation), ())

    def crashes_too_often(self, instance: DesiredObject) -> bool:
        """Stays true until its generation changes, however long ago the crashes are."""
        last = self.restarts_of(instance)[-MAX_RESTARTS:]
        return len(last) == MAX_RESTARTS and last[-1] - last[0] <= RESTART_WINDOW_S

    def count_recent_restarts(self, instance: DesiredObject, now: float) -> int:
        """How often it was restarted within the window."""
        return sum(now - time <= RESTART_WINDOW_S for time in self.restarts_of(instance))

    def note_restart(self, instance: DesiredObject, now: float) -> None:
        """Records a restart after a crash."""
        self.restarts[instance.id, instance.generation] = (*self.restarts_of(instance), now)[-MAX_RESTARTS:]

    def note_running(self, instance: DesiredObject, now: float) -> None:
        """Clears the restarts of an instance that has run for a whole RESTART_WINDOW_S."""
        if self.restarts_of(instance) and not self.count_recent_restarts(instance, now):
            del self.restarts[instance.id, instance.generation]

    def keep_only(self, ids: Set[str]) -> None:
        """Forgets all other instances."""
        for id_ in self.stopping.keys() - ids:
            del self.stopping[id_]
        for key in [key for key in self.restarts if key[0] not in ids]:
            del self.restarts[key]
