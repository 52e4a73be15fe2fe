"""A breadth-first search of all worlds, so that a trace it prints is a shortest one.

never two       the machine runs on at most one host that can still write
disk safe       the disk is not destroyed while somebody runs on it, nor while the machine is wanted
explicit GONE   only an agent that was told GONE destroys, at the epoch at which the database has it GONE
never stuck     without further faults a good state can be reached: as wanted, or one that says why it waits
                (HOST_OFFLINE, HELD_ELSEWHERE, DISK_MISSING)
ends            once every host that is not forgotten is back: as wanted, HELD_ELSEWHERE or DISK_MISSING; and of what
                is deleted, no domain and no disk are left
"""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from kowa.assignments import RUNNING
from tests.assignments.hosts import EVENT, PROTOCOL, RETURN
from tests.assignments.steps import Steps
from tests.assignments.world import World, canonical, resting_place, wrong_reason

TWINS = "never two: two hosts run the machine"


class Result(NamedTuple):
    """How many worlds were seen, and the first violation with its trace; none if there is none."""

    worlds: int
    violation: str = ""
    trace: tuple[str, ...] = ()


def search(start: World, steps: Steps) -> Result:
    """Searches all worlds that can be reached."""
    index, worlds, parents = {start: 0}, [start], [(0, "")]
    unexplained: tuple[int, str] | None = None
    edges = {PROTOCOL: array("l"), RETURN: array("l")}  # pairs, flat

    def found(violation: str, at: int, *last: str) -> Result:
        trace = list(last)
        while at:
            at, words = parents[at]
            trace.insert(0, words)
        return Result(len(worlds), violation, tuple(trace))

    for at, world in enumerate(worlds):  # grows as it is read
        before = len(edges[PROTOCOL])
        for step in steps.after(world):
            if step.wrong:
                return found(step.wrong, at, step.words)
            after = canonical(step.world)
            number = index.get(after)
            if number is None:
                number = index[after] = len(worlds)
                worlds.append(after)
                parents.append((at, step.words))
                if _twins(after):
                    return found(TWINS, number)
            if step.kind != EVENT:
                edges[step.kind].extend((at, number))
        if len(edges[PROTOCOL]) == before and not unexplained:
            unexplained = (at, wrong) if (wrong := wrong_reason(world)) else None
    index.clear()
    places = [resting_place(world) for world in worlds]
    good = [number for number, place in enumerate(places) if place]
    final = [number for number in good if places[number] != "HOST_OFFLINE"]
    for title, goals, ways in (
        ("never stuck", good, edges[PROTOCOL]),
        ("ends", final, edges[PROTOCOL] + edges[RETURN]),
    ):
        stuck = unreached(len(worlds), goals, ways)
        if stuck is not None:
            return found(f"{title}: {worlds[stuck]}", stuck)
    if unexplained:
        return found(f"says why: {unexplained[1]}", unexplained[0])
    return Result(len(worlds))


def replay(start: World, steps: Steps, trace: Iterable[str]) -> tuple[int, str]:
    """How many steps of a trace can be taken, and what the last of them violates."""
    world, taken = start, 0
    for words in trace:
        step = next((step for step in steps.after(world) if step.words == words), None)
        if step is None:
            break
        world, taken = canonical(step.world), taken + 1
        wrong = step.wrong or (TWINS if _twins(world) else "")
        if wrong:
            return taken, wrong
    return taken, ""


def unreached(count: int, goals: Iterable[int], edges: "array[int]") -> int | None:
    """The first world from which no goal can be reached along the edges."""
    before: list[list[int]] = [[] for _ in range(count)]
    for source, target in zip(edges[::2], edges[1::2], strict=True):
        before[target].append(source)
    todo = list(goals)
    seen = bytearray(count)
    for goal in todo:
        seen[goal] = 1
    while todo:
        for source in before[todo.pop()]:
            if not seen[source]:
                seen[source] = 1
                todo.append(source)
    first = seen.find(0)
    return None if first < 0 else first


def _twins(world: World) -> bool:
    return sum(host.domain == RUNNING and host.can_write and host.up for host in world.hosts) > 1
