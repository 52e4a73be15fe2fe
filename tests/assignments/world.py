"""A world of one machine, two or three hosts and Kahuna, as values: what is durable, and what is in flight."""

from typing import NamedTuple

from kahuna.domain.assignments.assignment import Region, Row
from kahuna.domain.assignments.delivery import Reason, waits_for
from kahuna.domain.assignments.exclusive import Exclusive
from kowa.assignments import NO_DOMAIN, PRESENT, RUNNING, DomainState, HandOver, Holding, Listing

NAMES = "ABC"
NO_STREAM, OPEN, READY = range(3)  # a stream: signed in, and its listing taken
NO_DISK, EXISTS, DESTROYED = range(3)


class Sent(NamedTuple):
    """A message to an agent: what to hold, if anything. `timeline` is the world's note of the database it is from."""

    holding: Holding | None
    timeline: int


class Host(NamedTuple):
    """A host and its agent. `held` is durable; `told` is Kahuna's memory of the session."""

    up: bool = True
    can_write: bool = True  # its storage user works; without, it is fenced: a fact of the storage
    held: Holding | None = None
    timeline: int = 0  # of the database that `held` is from
    domain: DomainState = NO_DOMAIN
    stream: int = NO_STREAM
    told: Holding | None = None
    down: Sent | None = None
    back: Listing | Holding | None = None  # a listing, or a report, on its way to Kahuna
    reported: bool = False  # what is held and carried out, in this session
    late: Listing | Holding | None = None  # of an ended session; kept only where a planted bug believes it


class Database(NamedTuple):
    """Kahuna's durable state, which a restore brings back whole."""

    object: Exclusive | None
    region: Region


class World(NamedTuple):
    """All there is, and what may still happen: operations, faults, and broken streams (-1: any number)."""

    database: Database
    hosts: tuple[Host, ...]
    backup: Database | None = None
    disk: int = NO_DISK
    timeline: int = 0  # 1 after a restore
    operations: int = 0
    faults: int = 0
    breaks: int = -1

    def with_host(self, i: int, host: Host) -> "World":
        """With a host in place of the i-th."""
        return self._replace(hosts=(*self.hosts[:i], host, *self.hosts[i + 1 :]))

    def peers(self, i: int) -> list[Host]:
        """All hosts but the i-th."""
        return [host for at, host in enumerate(self.hosts) if at != i]


def first(hosts: int, operations: int, faults: int, breaks: int) -> World:
    """The world before anything has happened."""
    database = Database(None, Region(frozenset(NAMES[:hosts])))
    return World(database, (Host(),) * hosts, operations=operations, faults=faults, breaks=breaks)


def canonical(world: World) -> World:
    """The world with its epochs numbered anew, so that worlds that differ in nothing else are one.

    Up to the highest epoch that Kahuna knows of, in its database or backup, only order and equality count; above it,
    the distance too.
    """
    object_, region = world.database
    old = world.backup.object if world.backup and world.backup.object else object_
    if object_ and not object_.uncertain and region.listed:  # nobody asks
        world = world._replace(database=Database(object_, region._replace(listed=frozenset())))
    base = min(object_.highest_epoch, old.highest_epoch) if object_ and old else 0
    used = {0, base, *_epochs(object_), *_epochs(old)}
    for host in world.hosts:
        for said in (host.held, host.told, host.down and host.down.holding, _holding(host.back), _holding(host.late)):
            if said:
                used.add(said.epoch)
                if said.hand_over:
                    used.add(said.hand_over.epoch)
    low = sorted(epoch for epoch in used if epoch <= base)
    if len(low) == base + 1:
        return world
    numbers = {epoch: number for number, epoch in enumerate(low)}
    fall = base - numbers[base]
    numbers |= {epoch: epoch - fall for epoch in used if epoch > base}
    hosts = tuple(
        host._replace(
            held=_numbered(host.held, numbers),
            told=_numbered(host.told, numbers),
            down=host.down and Sent(_numbered(host.down.holding, numbers), host.down.timeline),
            back=_message(host.back, numbers),
            late=_message(host.late, numbers),
        )
        for host in world.hosts
    )
    backup = world.backup and world.backup._replace(object=_object(world.backup.object, numbers))
    database = world.database._replace(object=_object(object_, numbers))
    return world._replace(database=database, hosts=hosts, backup=backup)


def _epochs(object_: Exclusive | None) -> list[int]:
    return [object_.highest_epoch, *(each.epoch for each in object_.assignments)] if object_ else []


def _holding(message: Listing | Holding | None) -> Holding | None:
    return message.holding if isinstance(message, Listing) else message


def _numbered(held: Holding | None, numbers: dict[int, int]) -> Holding | None:
    if held is None:
        return None
    order = held.hand_over
    order = order and HandOver(order.target, numbers[order.epoch])
    return Holding(held.demand, numbers[held.epoch], held.generation, order)


def _message(message: Listing | Holding | None, numbers: dict[int, int]) -> Listing | Holding | None:
    if isinstance(message, Listing):
        return message._replace(holding=_numbered(message.holding, numbers))
    return _numbered(message, numbers)


def _object(object_: Exclusive | None, numbers: dict[int, int]) -> Exclusive | None:
    if object_ is None:
        return None
    assignments = tuple(each._replace(epoch=numbers[each.epoch]) for each in object_.assignments)
    return object_._replace(assignments=assignments, highest_epoch=numbers[object_.highest_epoch])


def resting_place(world: World) -> str:
    """The name of the good state that the world is in; empty if it must not stay so."""
    object_, region = world.database
    hosts = dict(zip(NAMES, world.hosts, strict=False))
    forgotten = hosts.keys() - region.agents
    if object_ is None:  # what stands on a host after a restore is known as a stranger
        known = all(host.stream == READY or not host.up or name in forgotten for name, host in hosts.items())
        return "NOTHING_WANTED" if known or not world.timeline else ""
    if object_.row == Row.REMOVED:
        left = [host for name, host in hosts.items() if host.domain and (host.up or name not in forgotten)]
        if world.disk == EXISTS or any(host.up for host in left):
            return ""
        return "HOST_OFFLINE" if left else "ENDED"
    return _resting_place_of(world, object_, hosts, forgotten)


def _resting_place_of(world: World, object_: Exclusive, hosts: dict[str, Host], forgotten: set[str]) -> str:
    region, holder = world.database.region, hosts[object_.holder]
    others = {name: host for name, host in hosts.items() if name != object_.holder}
    if _is_as_wanted(world, object_, holder, others, forgotten):
        return "AS_WANTED"
    if object_.row == Row.LIVE and world.disk == DESTROYED and holder.up and holder.held and holder.held == holder.told:
        return "DISK_MISSING"
    awaited = {each.agent for each in object_.others(object_.holder)} - forgotten
    if object_.uncertain:
        awaited |= region.agents - region.listed - {object_.holder}
    if not holder.up or (not holder.can_write and not any(host.up for host in others.values())):
        return "HOST_OFFLINE"
    if any(not hosts[name].up for name in awaited):
        return "HOST_OFFLINE"
    if object_.row == Row.LIVE and world.disk == DESTROYED:
        return "DISK_MISSING"
    elsewhere = [others[name] for name in object_.found - {object_.holder} if object_.of(name) is None]
    is_held = any(host.domain or (host.held and host.held.demand == PRESENT) for host in elsewhere)
    return "HELD_ELSEWHERE" if object_.row == Row.LIVE and object_.uncertain and is_held else ""


def _is_as_wanted(world: World, object_: Exclusive, holder: Host, others: dict[str, Host], forgotten: set[str]) -> bool:
    own = object_.of(object_.holder)
    if object_.row != Row.LIVE or world.disk == DESTROYED or not (holder.up and holder.can_write):
        return False
    if own is None or own.demand != PRESENT or not own.applied or object_.moving_to or len(object_.assignments) > 1:
        return False
    if any(host.up and not host.can_write for name, host in others.items() if name not in forgotten):
        return False  # it is to get its storage back
    # A host that is off may have a domain left if it can't start it: it is forgotten, or fenced.
    quiet = all(
        not host.domain or (not host.up and (name in forgotten or not host.can_write)) for name, host in others.items()
    )
    return quiet and (holder.domain == RUNNING) == (object_.generation == 1)


def wrong_reason(world: World) -> str:
    """What is wrong with the reason that people are given for a world in which nothing moves; empty if it is right."""
    object_, region = world.database
    if object_ is None or object_.row == Row.REMOVED:
        return ""
    place, waiting = resting_place(world), waits_for(object_, region)
    if place in ("AS_WANTED", "DISK_MISSING"):
        return f"{place}, yet it waits for {waiting}" if waiting and place == "AS_WANTED" else ""
    if waiting is None:
        return f"{place}, without a reason"
    down = {name for name, host in zip(NAMES, world.hosts, strict=False) if not host.up}
    if waiting.reason == Reason.HOST_OFFLINE and not down.issuperset(waiting.agents):
        return f"{place}, yet it waits for {waiting}"
    if place == "HELD_ELSEWHERE" and waiting.reason != Reason.HELD_ELSEWHERE:
        return f"{place}, yet it waits for {waiting}"
    return ""
