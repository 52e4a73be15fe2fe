"""Back-off: pauses between the attempts at something that fails."""

import random
from collections.abc import Callable


def delay(attempt: int, first: float, longest: float, factor: float = 2.0) -> float:
    """Seconds to pause after a failed attempt, counted from 1: `first`, then `factor` times as long each time."""
    exponent = min(attempt - 1, 64)  # bounded: after days of failures it would overflow
    return float(min(first * factor**exponent, longest))


class Backoff:
    """Counts failed attempts in a row. Each pause is a random part of the delay, so that many don't try at once."""

    def __init__(self, first: float, longest: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """Delays in seconds; `uniform(low, high)` returns a random number between both."""
        self._first, self._longest, self._uniform = first, longest, uniform
        self._attempt = 0

    def next_pause(self) -> float:
        """Seconds until the next attempt: between half of the delay and all of it."""
        self._attempt += 1
        return self._uniform(0.5, 1.0) * delay(self._attempt, self._first, self._longest)

    def reset(self) -> None:
        """Called after a success: the next pause is short again."""
        self._attempt = 0
