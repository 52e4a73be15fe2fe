"""A figure: a measured value, its floor, and its promise."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the report. `keeps` tells whether the promise is kept."""

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


HEADER = f"{'figure':<44} {'value':>9} {'floor':>9} {'ratio':>7}  {'unit':<6} {'':<7} promise"


def at_most(name: str, value: float, unit: str, bound: float, floor: float = math.nan) -> Figure:
    """A figure that may not be greater than a bound."""
    return Figure(name, value, unit, f"<= {bound:.4g} {unit}", value <= bound, floor)


def at_least(name: str, value: float, unit: str, bound: float, floor: float = math.nan) -> Figure:
    """A figure that may not be less than a bound."""
    return Figure(name, value, unit, f">= {bound:.4g} {unit}", value >= bound, floor)


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all values is below."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def rate(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> float:
    """Calls a second, with this number of callers at once."""
    import asyncio

    end = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await call()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - started)


async def latencies(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Seconds of each of `count` calls, one after the other."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - started)
    return taken
