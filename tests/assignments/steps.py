"""Everything that can happen in the world. Kahuna's and the agents' steps call the project's own rules.

A step is what is atomic in reality: one transaction, one durable write of an agent, one act on a host or on the
storage, one message taken from a stream. Any step may follow any other. A process that is killed loses its streams
and what is in flight, and nothing else, as transactions and stores are atomic: so a killed agent is a broken stream,
and a Kahuna killed before or after a commit is a message lost before or after it was taken. Both may happen at any
moment. Each direction of a stream carries one message, delayed as long as it likes.

Left out: refusals, acks (a message counts as delivered when it is sent, as its loss ends the session), the time that a
lease takes to expire (a fence may strike any host without a stream), and Kahuna's replicas. Machine and disk are one
object, and its generation says only whether it shall run.
"""

from collections.abc import Iterator
from functools import cache

from kahuna.domain.assignments import delivery, exclusive, fence, intake, moves
from kahuna.domain.assignments.assignment import Region, Row
from kahuna.domain.assignments.exclusive import Exclusive
from kahuna.domain.assignments.intake import Session
from kowa.assignments import (
    NO_DOMAIN,
    RUNNING,
    STOPPED,
    Holding,
    Listing,
)
from tests.assignments.hosts import (
    EVENT,
    OFF,
    ON,
    PROTOCOL,
    RETURN,
    Step,
    acts,
    after_storing,
    named,
    said,
    with_reports,
)
from tests.assignments.world import (
    NAMES,
    NO_STREAM,
    OPEN,
    READY,
    Database,
    Sent,
    World,
)


class Rules:
    """The project's rules, whose results are remembered: they are pure."""

    def __init__(self) -> None:
        self.created = cache(exclusive.created)
        self.changed = cache(exclusive.changed)
        self.marked = cache(exclusive.marked)
        self.moved = cache(exclusive.moved)
        self.live_move_begun = cache(exclusive.live_move_begun)
        self.live_move_ended = cache(exclusive.live_move_ended)
        self.session_opened = cache(exclusive.session_opened)
        self.fence_read = cache(exclusive.fence_read)
        self.forgotten = cache(exclusive.forgotten)
        self.restarted = cache(exclusive.restarted)
        self.follow = cache(exclusive.follow)
        self.to_send = cache(delivery.to_send)
        self.take_listing = cache(intake.take_listing)
        self.take_report = cache(intake.take_report)


class Steps:
    """The steps of a group of things that may happen. `planted` are bugs of the world itself, not of the rules."""

    def __init__(self, allowed: frozenset[str], planted: frozenset[str] = frozenset()) -> None:
        self._allowed, self._planted, self._rules = allowed, planted, Rules()
        self._restores = bool({"told", "untold"} & allowed)

    def after(self, world: World) -> Iterator[Step]:
        """All that may happen next."""
        for i in range(len(world.hosts)):
            yield from acts(world, i)
            yield from self._of_stream(world, i)
            yield from self._of_storage(world, i)
            yield from self._faults(world, i)
        yield from self._of_kahuna(world)
        yield from self._operations(world)

    # Kahuna

    def _commit(self, world: World, object_: Exclusive | None, region: Region | None = None) -> World:
        """Commits, then sends to each stream what it lacks."""
        database = Database(object_, world.database.region if region is None else region)
        return self._push(world._replace(database=database))

    def _push(self, world: World) -> World:
        object_, region = world.database
        for i, host in enumerate(world.hosts):
            if host.stream == READY and host.down is None:
                wanted = object_ and self._rules.to_send(object_, region, NAMES[i], host.told)
                if not isinstance(wanted, delivery.Waiting) and wanted != host.told:
                    host = host._replace(told=wanted, down=Sent(wanted, world.timeline))
                    world = world.with_host(i, host)
        return world

    def _restarted(self, database: Database) -> Database:
        object_, region = database
        return Database(object_ and self._rules.restarted(object_), region.restarted())

    def _cut(self, world: World, i: int) -> World:
        """A stream ends, with all that is in flight on it."""
        host = world.hosts[i]
        if not host.stream:
            return world
        late = host.back if "session not checked" in self._planted and host.back else host.late
        gone = host._replace(stream=NO_STREAM, told=None, down=None, back=None, reported=False, late=late)
        database = world.database._replace(region=world.database.region.closed(NAMES[i]))
        return world.with_host(i, gone)._replace(database=database)

    def _cut_all(self, world: World) -> World:
        for i in range(len(world.hosts)):
            world = self._cut(world, i)
        return world

    def _take(self, world: World, i: int, message: Listing | Holding, *, living: bool) -> World:
        object_, region = world.database
        host = world.hosts[i]
        if isinstance(message, Listing):
            region = region.with_listing(NAMES[i]) if NAMES[i] in region.agents else region
            if living:
                host = host._replace(stream=READY, told=message.holding)
                world = world.with_host(i, host)
        session = Session(host.told, living)
        if object_ and isinstance(message, Listing):
            object_ = self._rules.take_listing(object_, region, NAMES[i], session, message).object
        elif object_ and isinstance(message, Holding):
            object_ = self._rules.take_report(object_, region, NAMES[i], session, message).object
        return self._commit(world, object_, region)

    def _of_kahuna(self, world: World) -> Iterator[Step]:
        database = world.database
        wanted = database.object is not None and database.object.row != Row.REMOVED
        starts_anew = "every start" not in self._planted
        if wanted and starts_anew and ("start" in self._allowed or world.timeline):
            after = self._cut_all(world)
            yield Step(EVENT, "Kahuna starts anew", after._replace(database=self._restarted(after.database)))
        if not self._restores or not world.faults:
            return
        if world.backup is None and not world.timeline:
            backup = self._restarted(database)
            if not starts_anew:
                region = database.region._replace(connected=frozenset())
                backup = database._replace(region=region)
            yield Step(EVENT, "a backup is taken", world._replace(backup=backup))
        if world.backup is not None:
            for how in sorted({"told", "untold"} & self._allowed):
                restored = self._restarted(world.backup) if how == "told" or starts_anew else world.backup
                after = self._cut_all(world)._replace(backup=None, timeline=1, faults=world.faults - 1)
                yield Step(EVENT, f"the backup is restored, {how}", after._replace(database=restored))

    # Streams

    def _of_stream(self, world: World, i: int) -> Iterator[Step]:
        host, name = world.hosts[i], NAMES[i]
        object_, region = world.database
        if host.up and not host.stream and name in region.agents:
            listing = Listing(host.held, host.domain, host.can_write)
            object_ = object_ and self._rules.session_opened(object_, name)
            opened = host._replace(stream=OPEN, reported=False, back=listing)
            after = world.with_host(i, opened)._replace(database=Database(object_, region.opened(name)))
            yield Step(PROTOCOL, f"{name} signs in", after)
        if host.back is not None:
            after = self._take(world.with_host(i, host._replace(back=None)), i, host.back, living=True)
            yield Step(PROTOCOL, f"Kahuna takes {name}'s {said(host.back)}", with_reports(after))
        if host.late is not None:
            after = self._take(world.with_host(i, host._replace(late=None)), i, host.late, living=False)
            yield Step(EVENT, f"Kahuna takes {said(host.late)} of an ended session of {name}", after)
        if host.down is not None:
            yield Step(PROTOCOL, f"{name} stores {named(host.down.holding)}", self._push(after_storing(world, i)))
        if host.stream and world.breaks:
            left = world.breaks - 1 if world.breaks > 0 else -1
            yield Step(EVENT, f"{name}'s stream breaks", self._cut(world, i)._replace(breaks=left))

    # The fence

    def _of_storage(self, world: World, i: int) -> Iterator[Step]:
        host, name = world.hosts[i], NAMES[i]
        object_, region = world.database
        if name not in region.agents:
            return
        witnesses = any(peer.stream == READY and peer.can_write for peer in world.peers(i))
        if not host.can_write and name not in region.fenced and (host.stream == READY or witnesses):
            region = region.with_fence(name)
            successor = next((other for other in sorted(region.agents) if other != name), name)
            object_ = object_ and self._rules.fence_read(object_, region, name, successor, host.told)
            yield Step(PROTOCOL, f"Kahuna reads that {name} is fenced", self._commit(world, object_, region))
        elif host.stream == READY and name in region.fenced and host.can_write:
            region = region.without_fence(name)
            object_ = object_ and self._rules.follow(object_, region)
            yield Step(PROTOCOL, f"Kahuna reads that {name} has its key", self._commit(world, object_, region))
        elif (
            host.stream == READY
            and name in region.fenced
            and not host.domain
            and fence.may_get_key((object_,) if object_ else (), name, host.held)
        ):
            after = with_reports(world.with_host(i, host._replace(can_write=True, reported=False)))
            yield Step(PROTOCOL, f"{name} gets a new key", after)

    # Faults and operations

    def _faults(self, world: World, i: int) -> Iterator[Step]:
        host, name, allowed = world.hosts[i], NAMES[i], self._allowed
        object_, region = world.database
        faults = world.faults - (1 if self._restores and not world.timeline else 0)  # one is kept for the restore
        if not host.up:
            can_write = host.can_write or "fenced host starts" in self._planted
            yield Step(
                RETURN, f"host {name} comes back", world.with_host(i, host._replace(up=True, can_write=can_write))
            )
        if host.up and "death" in allowed and faults > 0:
            after = self._cut(world, i)
            domain = STOPPED if host.domain in (STOPPED, RUNNING) else NO_DOMAIN
            after = after.with_host(i, after.hosts[i]._replace(up=False, domain=domain))
            yield Step(EVENT, f"host {name} dies", after._replace(faults=world.faults - 1))
        witnesses = any(peer.stream == READY and peer.can_write for peer in world.peers(i))
        known = name in region.agents
        if host.can_write and not host.stream and witnesses and known and object_ and object_.of(name):
            cost = 1 if host.up else 0
            if ("death" in allowed and not host.up) or ("fence" in allowed and faults > 0):
                after = world.with_host(i, host._replace(can_write=False))
                yield Step(EVENT, f"{name} is fenced", after._replace(faults=world.faults - cost))
        if "lose" in allowed and faults > 0 and host.up and host.held:
            after = self._cut(world, i)
            after = after.with_host(i, after.hosts[i]._replace(held=None, timeline=0))
            yield Step(EVENT, f"{name} loses its store", after._replace(faults=world.faults - 1))
        ready = any(peer.stream == READY for peer in world.peers(i))
        if "forget" in allowed and world.operations and not host.up and known and len(region.agents) > 1 and ready:
            if not fence.may_be_forgotten(can_write=host.can_write):
                host = host._replace(can_write=False)
            region = region.without(name)
            object_ = object_ and self._rules.forgotten(object_, region, name, min(region.agents))
            after = world.with_host(i, host)._replace(operations=world.operations - 1)
            yield Step(EVENT, f"the operator forgets {name}", self._commit(after, object_, region))

    def _operations(self, world: World) -> Iterator[Step]:
        (object_, region), rules, allowed = world.database, self._rules, self._allowed
        if object_ is None:
            if not world.timeline:
                holder = min(region.agents)
                yield Step(EVENT, f"create on {holder}", self._commit(world, rules.created(holder, region)))
            return
        if object_.row != Row.LIVE or not world.operations:
            return
        after = world._replace(operations=world.operations - 1)
        runs = object_.generation == ON
        for other in sorted(region.agents - {object_.holder}):
            if "move" in allowed and not moves.obstacle_to_move(object_, region, other):
                yield Step(EVENT, f"move to {other}", self._commit(after, rules.moved(object_, region, other)))
            if "live" in allowed and runs and not moves.obstacle_to_live_move(object_, region, other):
                begun = rules.live_move_begun(object_, region, other)
                yield Step(EVENT, f"live move to {other}", self._commit(after, begun))
        if "live" in allowed and object_.moving_to:
            ended = rules.live_move_ended(object_, region)
            yield Step(EVENT, "the live move is called off", self._commit(after, ended))
        if "power" in allowed:
            power = OFF if runs else ON
            changed = rules.changed(object_, region, power, runs=power == ON)
            yield Step(EVENT, "start" if power else "stop", self._commit(after, changed))
        if "delete" in allowed:
            yield Step(EVENT, "delete", self._commit(after, rules.marked(object_, region)))
