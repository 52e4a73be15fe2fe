"""The holders of a token: two agents that have the same one supersede each other in turns."""

import time
from collections.abc import Callable

from kahuna.fleet.session import Holder

SHARED_WITHIN_S = 300.0  # an agent that comes back so soon after another has superseded it shows that both run
MAX_SUPERSEDED = 8  # remembered for each agent


class Holders:
    """Remembers who was superseded, to notice when they come back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._superseded: dict[str, dict[str, float]] = {}  # by agent, then by holder
        self._shared: dict[str, tuple[float, str]] = {}  # by agent: since when, and what both are told

    def supersede(self, agent: str, older: Holder, newer: Holder) -> str:
        """Notes that a holder supersedes another. Returns the problem when both hold the token; else nothing."""
        if older.key == newer.key:
            return ""
        now, superseded = self._clock(), self._superseded.setdefault(agent, {})
        came_back = now - superseded.pop(newer.key, float("-inf")) < SHARED_WITHIN_S
        superseded.pop(older.key, None)
        superseded[older.key] = now
        while len(superseded) > MAX_SUPERSEDED:
            del superseded[next(iter(superseded))]
        if not came_back:
            return ""
        both = " and ".join(sorted((str(older), str(newer))))
        problem = f"two agents take turns with one token: {both}; stop one of them, or give each a token of its own"
        self._shared[agent] = now, problem
        return problem

    def problem(self, agent: str) -> str:
        """What is wrong with the agent's token, as long as it was noticed lately; else nothing."""
        since, problem = self._shared.get(agent, (float("-inf"), ""))
        if self._clock() - since < SHARED_WITHIN_S:
            return problem
        self._shared.pop(agent, None)
        return ""
