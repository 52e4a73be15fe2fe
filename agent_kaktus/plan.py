"""The least steps that turn what is into what is wanted. Pure: the text of it is the test.

Only an explicit GONE removes anything. What bears our mark, or a name as we give them, and is in no slice is named as a
stranger and left alone. A step is planned when all it stands on is there; what stands on it follows with the next look.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from agent_kaktus import names
from agent_kaktus.compute.plan import machine
from agent_kaktus.desired import Thing
from agent_kaktus.network.plan import card, host, range_, segment
from agent_kaktus.storage.plan import pool, template, volume
from agent_kaktus.view import AS_WANTED, GONE, Plan, Verdict, View

Kind = TypeVar("Kind", bound=Thing)


def plan(view: View) -> Plan:
    verdicts: dict[str, Verdict] = {}

    def judge(things: Mapping[str, Kind], decide: Callable[[View, Kind], Verdict]) -> None:
        for id_, thing in things.items():
            given_up = "" if thing.gone else view.memory.why_given_up(thing)
            verdicts[id_] = Verdict(fails=given_up) if given_up else decide(view, thing)

    desired = view.desired
    judge(desired.passive, lambda _, thing: GONE if thing.gone else AS_WANTED)
    if desired.host:
        judge({desired.host.id: desired.host}, host)
    judge(desired.pools, pool)
    judge(desired.templates, template)
    judge(desired.volumes, volume)
    judge(desired.segments, segment)
    judge(desired.ranges, range_)
    judge(desired.cards, card)
    judge(desired.machines, machine)
    return Plan(verdicts, strangers(view))


def strangers(view: View) -> tuple[str, ...]:
    desired, actual = view.desired, view.actual
    found = [f"domain {other.name}" for other in actual.others.values()]
    found += [f"domain {ours.name}" for id_, ours in actual.domains.items() if id_ not in desired.machines]
    known = desired.volumes.keys() | desired.templates.keys()
    found += [f"file {image.pool}/{image.file}" for id_, image in actual.images.items() if id_ not in known]
    found += [f"pool {id_}" for id_ in actual.pools if id_ not in desired.pools]
    bridges = {names.bridge(id_) for id_ in desired.segments}
    found += [f"bridge {name}" for name in actual.links if names.is_bridge(name) and name not in bridges]
    ports = {segment.port for segment in desired.segments.values()}
    found += [f"metadata port {name}" for name in actual.links if names.is_port(name) and name not in ports]
    return tuple(sorted(found))
