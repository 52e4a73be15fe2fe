"""What an agent may do on its host, by the agents' own rules."""

from collections.abc import Iterator
from typing import NamedTuple

from kahuna.domain.assignments.assignment import Row
from kowa.assignments import (
    GONE,
    INCOMING,
    NO_DOMAIN,
    PREPARE,
    PRESENT,
    RELEASED,
    RUNNING,
    STOPPED,
    SWITCHED,
    Demand,
    DomainState,
    Holding,
    Listing,
)
from kowa.runtime import assignments as agent_rules
from tests.assignments.world import DESTROYED, EXISTS, NAMES, NO_DISK, Host, World

PROTOCOL, RETURN, EVENT = range(3)  # a step of the protocol; a host comes back; an operation, a fault, a broken stream
OFF, ON = 0, 1  # the generations: the machine is wanted stopped, or running


class Step(NamedTuple):
    """A step: of which class, in words, the world after it, and what it violates."""

    kind: int
    words: str
    world: World
    wrong: str = ""


def acts(world: World, i: int) -> Iterator[Step]:
    """What an agent may do on its host now."""
    host, name = world.hosts[i], NAMES[i]
    held, domain = host.held, host.domain
    if not host.up:
        return
    if not host.can_write and domain:
        yield _act(world, i, "learns that it is fenced and destroys its domain", domain=NO_DOMAIN)
    if held is None:
        return
    if held.demand == PRESENT and host.can_write:
        runs = held.generation == ON
        if world.disk == NO_DISK:
            yield Step(PROTOCOL, f"{name} makes the disk", with_reports(world._replace(disk=EXISTS)))
        elif runs and domain != RUNNING and world.disk == EXISTS:
            yield _act(world, i, "starts the machine", domain=RUNNING)
        if not runs and domain == RUNNING:
            yield _act(world, i, "stops the machine", domain=STOPPED)
        target = _link(world, i) if runs and domain == RUNNING else None
        if target is not None:
            yield _hand_over(world, i, target)
    if agent_rules.lets_target_go_on(held):
        target = _link(world, i)
        if target is not None:
            words = f"{name} lets {NAMES[target]} go on, which runs it"
            yield Step(PROTOCOL, words, with_reports(_set(world, target, domain=RUNNING)))
    if held.demand == PREPARE and host.can_write and domain == NO_DOMAIN and world.disk == EXISTS:
        yield _act(world, i, "sets up the incoming domain", domain=INCOMING)
    if held.demand in (RELEASED, GONE, SWITCHED) and domain:
        yield _act(world, i, "removes its domain", domain=NO_DOMAIN)
    if held.demand == GONE and host.can_write and not domain and world.disk == EXISTS:
        after = with_reports(world._replace(disk=DESTROYED))
        yield Step(PROTOCOL, f"{name} destroys the disk", after, _wrong_to_destroy(world, i, held))


def _set(world: World, i: int, *, domain: DomainState, held: Holding | None = None) -> World:
    host = world.hosts[i]
    return world.with_host(i, host._replace(domain=domain, held=held or host.held, reported=False))


def _act(world: World, i: int, words: str, *, domain: DomainState) -> Step:
    return Step(PROTOCOL, f"{NAMES[i]} {words}", with_reports(_set(world, i, domain=domain)))


def _hand_over(world: World, i: int, target: int) -> Step:
    held = world.hosts[i].held
    assert held is not None
    stored = agent_rules.hand_over(held)
    if stored != held:
        after = _set(world, i, domain=NO_DOMAIN, held=stored)
        return Step(PROTOCOL, f"{NAMES[i]} pauses the machine and stores SWITCHED", with_reports(after))
    after = _set(_set(world, i, domain=STOPPED), target, domain=RUNNING)
    return Step(PROTOCOL, f"{NAMES[i]} hands the machine over, {NAMES[target]} runs it", with_reports(after))


def _link(world: World, i: int) -> int | None:
    """The target that a source is connected to for a live move: open at the epoch of its PREPARE only."""
    held = world.hosts[i].held
    order = held.hand_over if held else None
    if order is None:
        return None
    target = world.hosts[NAMES.index(order.target)]
    is_open = target.up and target.can_write and agent_rules.accepts(target.held, target.domain, order.epoch)
    return NAMES.index(order.target) if is_open else None


def _is_done(world: World, host: Host) -> bool:
    held = host.held
    if held is None:
        return False
    exists, runs = world.disk == EXISTS, held.generation == ON
    return agent_rules.is_carried_out(held, host.domain, exists=exists, can_write=host.can_write, runs=runs)


def with_reports(world: World) -> World:
    """Each agent reports as soon as there is something to report and its stream has room."""
    for i, host in enumerate(world.hosts):
        if host.stream and host.back is None and not host.reported and _is_done(world, host):
            world = world.with_host(i, host._replace(reported=True, back=host.held))
    return world


def after_storing(world: World, i: int) -> World:
    host = world.hosts[i]
    assert host.down is not None
    done = _is_done(world, host)
    stored = agent_rules.to_store(host.held, host.down.holding, domain=host.domain, done=done)
    timeline = host.down.timeline if stored == host.down.holding else host.timeline
    timeline = timeline if stored else 0
    reported = host.reported if stored == host.held else False
    host = host._replace(held=stored, timeline=timeline, down=None, reported=reported)
    return with_reports(world.with_host(i, host))


def _wrong_to_destroy(world: World, i: int, held: Holding) -> str:
    """What is violated when a host destroys the disk."""
    name, object_ = NAMES[i], world.database.object
    for peer in world.peers(i):
        if peer.up and peer.can_write and peer.domain == RUNNING:
            return f"disk safe: {name} destroyed the disk that another runs on"
    if world.hosts[i].timeline != world.timeline:
        return ""
    if object_ and object_.row == Row.LIVE:
        return f"disk safe: {name} destroyed the disk of a machine that is wanted"
    own = object_.of(name) if object_ else None
    if own is None or (own.demand, own.epoch) != (GONE, held.epoch):
        return f"explicit GONE: {name} destroyed the disk though the database has no GONE for it at that epoch"
    return ""


def named(held: Holding | None) -> str:
    if held is None:
        return "nothing"
    order = f", with an order to hand over to {held.hand_over.target}" if held.hand_over else ""
    return f"{Demand.Name(held.demand).removeprefix('DEMAND_')} at epoch {held.epoch}{order}"


def said(message: Listing | Holding) -> str:
    if isinstance(message, Listing):
        return f"listing: {named(message.holding)}"
    return f"report: {named(message)}"
