"""The pace of agents: when those who are refused may come back, and how much one of them may cost."""

import time
from collections.abc import Callable

from kahuna.fleet.ending import LONGEST_PAUSE_S


class Pace:
    """Spreads those who are told to come back, so that no more than so many a second do."""

    def __init__(
        self,
        per_second: float,
        least_s: float,
        most_s: float = LONGEST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`least_s` and `most_s` are the shortest and the longest pause in seconds; `clock` returns seconds."""
        self._interval_s, self._least_s, self._most_s, self._clock = 1 / per_second, least_s, most_s, clock
        self._last = float("-inf")

    def next_pause(self) -> float:
        """Seconds until the next one may come back."""
        now = self._clock()
        self._last = max(now + self._least_s, self._last + self._interval_s)
        self._last = min(self._last, now + self._most_s)
        return self._last - now


class Bucket:
    """What one agent may cost: so much at once, and so much a second for long."""

    def __init__(self, size: float, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._size, self._per_second, self._clock = size, per_second, clock
        self._level, self._at = size, clock()

    @property
    def is_full(self) -> bool:
        """Whether nothing was taken for long: then a new bucket is as good."""
        self._fill()
        return self._level >= self._size

    def spend(self, cost: float) -> float:
        """Takes the cost in any case. Returns the seconds to pause until it is paid."""
        self._fill()
        self._level -= cost
        return max(0.0, -self._level / self._per_second)

    def take(self) -> float:
        """Takes one, and returns 0; or takes nothing, and returns the seconds until there is one."""
        self._fill()
        if self._level < 1:
            return (1 - self._level) / self._per_second
        self._level -= 1
        return 0.0

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._at) * self._per_second)
        self._at = now
