"""An agent's holdings, kept by increments, equal its slice computed from scratch, after any history. No sockets."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from kahuna.domain.reach import Member, Paths, Reach
from kahuna.fleet.fleet import Fleet
from kahuna.fleet.session import Session, describe
from kahuna.kinds.reach import paths_of_kinds, reach_of_kinds
from kahuna.store.database import Store
from kahuna.store.resource import CONTRACT, message_class, meta
from kahuna.store.view import Change, Commit, Entry, View
from kowa.fleet.v1 import fleet_pb2

AGENTS = ("ann", "bob", "cyd")
KINDS = tuple(reach_of_kinds().order)
SAME_VNET = "subnet.vnet.Subnet(vnet).Adapter(subnet).instance.kaktus.agent"
# Planned: hosts that share a vnet inform each other, and a pool's disks also reach the hosts that use them.
FUTURE_PATHS = paths_of_kinds() | {
    "Kaktus": Paths(informs=("agent", f"Instance(kaktus).Adapter(instance).{SAME_VNET}")),
    "Instance": Paths(reaches=("kaktus.agent",), informs=(f"Adapter(instance).{SAME_VNET}",)),
    "Adapter": Paths(reaches=("instance.kaktus.agent",), informs=(SAME_VNET,)),
    "Volume": Paths(reaches=("storage_pool.kaktus.agent", "instance.kaktus.agent")),
}
REACHES = {
    "today": reach_of_kinds(),
    "planned": Reach({name: kind.message.references for name, kind in CONTRACT.kinds.items()}, FUTURE_PATHS),
}
# The fields that name each kind's parents. The first must be set; the others may be empty.
PARENTS: dict[str, tuple[str, ...]] = {
    "Region": (), "Project": (), "Zone": ("region",), "Kaktus": ("zone",), "Kiwi": ("region",),
    "StoragePool": ("region", "kaktus"), "Template": ("storage_pool",), "Volume": ("storage_pool", "project"),
    "Vnet": ("region",), "Subnet": ("vnet",), "Adapter": ("subnet", "project"),
    "Instance": ("region", "project", "zone"),
}  # fmt: skip
KIND_OF = {
    "region": "Region", "project": "Project", "zone": "Zone", "kaktus": "Kaktus", "storage_pool": "StoragePool",
    "vnet": "Vnet", "subnet": "Subnet", "instance": "Instance",
}  # fmt: skip
# The field of a kind that may change to another target, or to none, during a resource's life.
MOVABLE = {"Kaktus": "agent", "Kiwi": "members", "Instance": "kaktus", "Adapter": "instance", "Volume": "instance"}


def _target(row: Any, field_: str) -> str:
    """The id in a field; of a Kiwi, its only member's, if any."""
    if field_ == "members":
        return str(row.members[0].agent) if row.members else ""
    return str(getattr(row, field_))


def _set_target(row: Any, field_: str, target: str) -> None:
    if field_ == "members":
        del row.members[:]
        if target:
            row.members.add(agent=target)
    else:
        setattr(row, field_, target)


class Database:
    """The resources as a database would store them, and the view that gets each change."""

    def __init__(self) -> None:
        self.view = View()
        self.rows: dict[str, tuple[str, Message]] = {}
        self._touched: dict[str, str] = {}
        self._created = 0

    def all(self, kind: str) -> list[str]:
        return [id_ for id_, (its, _) in self.rows.items() if its == kind]

    def create(self, kind: str, pick: int) -> None:
        """Creates a resource below parents that `pick` chooses."""
        resource = message_class(kind)()
        for index, field_ in enumerate(PARENTS[kind]):
            choices = self.all(KIND_OF[field_]) + ([""] if field_ == "kaktus" else [])
            if not choices:
                return
            setattr(resource, field_, choices[pick // (index + 1) % len(choices)])
        self._created += 1
        head = meta(resource)
        head.id, head.generation = f"{kind.lower()}-{self._created}", 1
        self._put(kind, resource)
        if kind in MOVABLE:
            self.move(head.id, pick)

    def change(self, id_: str) -> None:
        """Changes its desired state."""
        kind, row = self.rows[id_]
        meta(row).generation += 1
        row.description = f"generation {meta(row).generation}"  # type: ignore[attr-defined]
        self._put(kind, row)

    def report(self, id_: str) -> None:
        """Changes its observed state: the generation stays."""
        kind, row = self.rows[id_]
        meta(row).observed_generation = meta(row).generation
        self._put(kind, row)

    def mark(self, id_: str) -> None:
        kind, row = self.rows[id_]
        if not meta(row).HasField("delete_time"):
            meta(row).delete_time.FromSeconds(1)
            meta(row).generation += 1
            self._put(kind, row)

    def move(self, id_: str, pick: int) -> None:
        """Changes its movable field to another agent, host or instance, or to none."""
        kind, row = self.rows[id_]
        field_ = MOVABLE.get(kind)
        if field_ is None:
            return
        choices = [*(AGENTS if field_ in ("agent", "members") else self.all(KIND_OF[field_])), ""]
        target = choices[pick % len(choices)]
        if _target(row, field_) != target:
            _set_target(row, field_, target)
            meta(row).generation += 1
            self._put(kind, row)

    def remove(self, id_: str) -> None:
        """Removes it and its children, parents first; optional references to it are cleared."""
        kind, _ = self.rows.pop(id_)
        self._touched[id_] = kind
        for other, (its, row) in list(self.rows.items()):
            if other in self.rows and any(getattr(row, field_) == id_ for field_ in PARENTS[its]):
                self.remove(other)
            elif other in self.rows and (movable := MOVABLE.get(its)) and _target(row, movable) == id_:
                self.move(other, -1)

    def commit(self) -> None:
        """Commits all changes since the last commit."""
        if not self._touched:
            return
        revision = self.view.revision + 1
        changes = [Change(revision, kind, id_, self._entry(id_, revision)) for id_, kind in self._touched.items()]
        self._touched.clear()
        self.view.apply(Commit(revision, tuple(changes)))

    def _put(self, kind: str, row: Message) -> None:
        self.rows[meta(row).id] = kind, row
        self._touched[meta(row).id] = kind

    def _entry(self, id_: str, revision: int) -> Entry | None:
        if id_ not in self.rows:
            return None
        _, row = self.rows[id_]
        meta(row).revision = revision
        return Entry(row.SerializeToString(deterministic=True), b"")


@dataclass
class Agent:
    """An agent's store and its session, with at most one unanswered batch."""

    name: str
    fleet: Fleet
    session: Session = field(init=False)
    store: dict[str, fleet_pb2.Object] = field(default_factory=dict)
    unanswered: tuple[list[fleet_pb2.Object], list[str], int] | None = None
    has_refused: bool = False

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """Opens a new session with the stored objects as holdings."""
        self.unanswered = None
        self.session = Session(self.fleet.store.view, self.name, "token", 1)
        self.session.holdings = {id_: (held.generation, held.gone) for id_, held in self.store.items()}
        self.fleet.sessions[self.name] = self.session

    async def send(self) -> bool:
        """Sends a batch if the session has changes; returns whether a batch is unanswered."""
        woken = asyncio.ensure_future(self.session.wait_for_change())
        await asyncio.sleep(0)
        if self.unanswered or not woken.done():
            woken.cancel()
            return False
        revision = self.fleet.store.view.revision
        objects, removed = self.session.difference()
        if objects or removed:
            self.unanswered = objects, removed, revision
        return bool(self.unanswered)

    def ack(self) -> None:
        if self.unanswered:
            objects, removed, revision = self.unanswered
            self.store |= {sent.id: sent for sent in objects}
            for id_ in removed:
                del self.store[id_]
            self.session.batch_stored(objects, removed, revision)
            self.unanswered = None

    def refuse(self) -> None:
        if self.unanswered:
            self.session.batch_refused()
            self.unanswered, self.has_refused = None, True


def expected(reach: Reach, view: View, agent: str) -> dict[str, fleet_pb2.Object]:
    """The slice, computed from scratch, as an agent stores it."""
    found = ((kind, view.find(kind, id_)) for kind, id_ in reach.slice(view, agent))
    described = (describe(resource) for _, resource in found if resource is not None)
    return {sent.id: sent for sent in described}


def slices_by_resource(reach: Reach, view: View) -> dict[str, set[Member]]:
    """The slices of all agents, computed from the agents of each resource."""
    found: dict[str, set[Member]] = {agent: set() for agent in AGENTS}
    for kind in KINDS:
        for id_ in view.entries(kind):
            for agent in reach.agents(view, kind, id_):
                found[agent].add((kind, id_))
    return found


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["create"] * 3
            + ["change", "report", "mark", "move", "move", "remove", "remove", "commit", "commit", "commit"]
            + ["send", "send", "send", "ack", "ack", "refuse", "connect", "quiet", "quiet"]
        ),
        st.integers(0, 60),
        st.integers(0, 60),
    ),
    min_size=30,
    max_size=200,
)
# The first steps create a site, so that short histories have resources to change.
SITE = [("create", kind, pick) for pick in (0, 7) for kind in range(len(KINDS))]


async def run_steps(reach: Reach, steps: Sequence[Step]) -> None:
    """Runs a history, and checks at each "quiet" step and at the end."""
    database = Database()
    fleet = Fleet(cast(Store, SimpleNamespace(view=database.view)))
    agents = [Agent(name, fleet) for name in AGENTS]
    for action, one, other in (*SITE, *steps):
        agent = agents[one % len(agents)]
        match action:
            case "create":
                database.create(KINDS[one % len(KINDS)], other)
            case "commit":
                database.commit()
            case "send":
                await agent.send()
            case "ack" | "refuse" | "connect":
                getattr(agent, action)()
            case "quiet":
                await check_all(reach, database, agents)
            case _ if database.rows:
                id_ = list(database.rows)[one % len(database.rows)]
                more = [other] if action == "move" else []
                getattr(database, action)(id_, *more)
            case _:
                pass
    await check_all(reach, database, agents)


def resend(database: Database, agent: Agent) -> None:
    """Causes the refused batch to be sent again: with a change of the agent's node, or as after the retry interval."""
    nodes = [id_ for id_, (_, row) in database.rows.items() if getattr(row, "agent", "") == agent.name]
    if nodes:
        database.change(nodes[0])
        database.commit()
    else:
        agent.session.notify_commands()  # wakes it


async def check_all(reach: Reach, database: Database, agents: list[Agent]) -> None:
    """Delivers all batches; then each agent must hold its slice."""
    database.commit()
    for agent in agents:
        agent.ack()
        if agent.has_refused:
            agent.has_refused = False
            resend(database, agent)
        while await agent.send():
            agent.ack()
    slices = slices_by_resource(reach, database.view)
    for agent in agents:
        assert reach.slice(database.view, agent.name) == slices[agent.name]
        assert all(reach.concerns(database.view, agent.name, kind, id_) for kind, id_ in slices[agent.name])
        assert agent.store == expected(reach, database.view, agent.name)
        assert agent.session.holdings == {id_: (held.generation, held.gone) for id_, held in agent.store.items()}


@pytest.mark.slow
@pytest.mark.parametrize("paths", REACHES)
@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_increments_add_up_to_the_slice_computed_from_scratch(paths: str, steps: list[Step]) -> None:
    reach = REACHES[paths]
    with (
        mock.patch("kahuna.fleet.fleet.reach_of_kinds", return_value=reach),
        mock.patch("kahuna.fleet.session.reach_of_kinds", return_value=reach),
    ):
        asyncio.run(run_steps(reach, steps))
