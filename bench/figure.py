"""A figure: what was measured, what the floor is, and what was promised."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. `keeps` says whether the promise is kept."""

    name: str
    value: float
    unit: str
    promise: str
    keeps: bool
    floor: float = math.nan

    def __str__(self) -> str:
        ratio = "" if math.isnan(self.floor) or not self.floor else f"{self.value / self.floor:.2f}"
        floor = "" if math.isnan(self.floor) else f"{self.floor:.4g}"
        verdict = "ok" if self.keeps else "missed"
        return f"{self.name:<44} {self.value:>9.4g} {floor:>9} {ratio:>7}  {self.unit:<6} {verdict:<7} {self.promise}"


HEAD = f"{'figure':<44} {'value':>9} {'floor':>9} {'ratio':>7}  {'unit':<6} {'':<7} promise"


def at_most(name: str, value: float, unit: str, bound: float, floor: float = math.nan) -> Figure:
    """A figure that may not be greater than a bound."""
    return Figure(name, value, unit, f"<= {bound:.4g} {unit}", value <= bound, floor)


def at_least(name: str, value: float, unit: str, bound: float, floor: float = math.nan) -> Figure:
    """A figure that may not be less than a bound."""
    return Figure(name, value, unit, f">= {bound:.4g} {unit}", value >= bound, floor)


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all stays below."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def rate(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> float:
    """Calls a second, with so many callers at once."""
    import asyncio

    end = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - begun)


async def latencies(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """How long each of `count` calls took, one after the other, in seconds."""
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - begun)
    return taken
