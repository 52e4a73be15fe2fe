"""Any history of changes, batches and reports: Kahuna believes what the statement here says, and nothing else."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.any_pb2 import Any as Packed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kahuna.fleet.reports import Reports
from kahuna.fleet.session import Session
from kahuna.store.resource import meta
from kahuna.store.transaction import Transaction
from kowa import resources
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import agent_pb2, instance_pb2, meta_pb2, vnet_pb2
from tests.site import Site

APPLIED, WORKING = fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_WORKING
WAITING, FAILED = fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_FAILED
RUNNING, STOPPED = instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED
PENDING, READY, ERROR = meta_pb2.STATE_PENDING, meta_pb2.STATE_READY, meta_pb2.STATE_ERROR


class Reported(NamedTuple):
    """A report on the machine. The generation is relative to the one that the agent holds, or any number."""

    generation: int = 0
    outcome: int = APPLIED
    gone: bool = False
    power: int = RUNNING
    by_guest: bool = False
    restarts: int = 0
    content: str = "instance"
    conditions: int = 0


class Listed(NamedTuple):
    """A new session, at whose beginning the agent lists the machine; the generation is relative to the current one."""

    generation: int
    gone: bool


def fields(**values: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields of a report, each with one of its values."""
    return st.fixed_dictionaries({name: st.sampled_from(found) for name, found in values.items()})


PART = st.one_of(
    fields(generation=[-1, -1, -1, 1, -(10**15), 10**15]),
    fields(generation=[-1], outcome=[FAILED]),
    fields(outcome=[0, 77]),
    fields(gone=[True], generation=[0, 0, -1], outcome=[APPLIED, APPLIED, WORKING]),
    fields(by_guest=[True], power=[RUNNING, STOPPED], outcome=[APPLIED]),
    fields(by_guest=[True], power=[STOPPED], content=["instance", "no status"], outcome=[APPLIED]),
    fields(by_guest=[True], power=[STOPPED], generation=[-1, 0], outcome=[APPLIED, WORKING]),
    fields(power=[STOPPED, STOPPED, 0, 99]),
    fields(restarts=[1, 1000, 1001], conditions=[0, 1, 16, 17]),
    fields(content=["no status", "no status", "another kind", "nothing", "garbage"]),
)
OUTCOMES = fields(outcome=[APPLIED, FAILED, WORKING, APPLIED, WAITING, FAILED])
REPORTS = st.tuples(OUTCOMES, st.lists(PART, max_size=2)).map(
    lambda drawn: Reported(**{key: part[key] for part in (drawn[0], *drawn[1]) for key in part})
)
CHANGES = st.sampled_from(["start", "stop", "change", "change", "delete"])
BATCHES = st.sampled_from(["ack"] * 4 + ["send", "refuse"])
SIGN_INS = st.builds(Listed, generation=st.integers(-2, 2), gone=st.booleans())
# Most histories are those of an agent in step; in the others it may have stored anything.
CHANGED = st.tuples(CHANGES, st.just("ack"))
SWITCHED_OFF = Reported(by_guest=True, power=STOPPED)
DELETED = st.tuples(st.just("delete"), st.just("ack"), st.just(Reported(gone=True, outcome=WORKING)), REPORTS)
STARTED_AGAIN = st.just((SWITCHED_OFF, "ack", "start", "ack", Reported(content="no status")))
ODD = st.one_of(CHANGES, BATCHES, SIGN_INS, st.tuples(SIGN_INS, REPORTS, st.just("ack"))).map(
    lambda step: step if type(step) is tuple else (step,)
)
TOLD = st.lists(REPORTS, min_size=1, max_size=4).map(tuple)
STEPS = st.lists(st.one_of(TOLD, TOLD, TOLD, CHANGED, ODD, STARTED_AGAIN, DELETED), min_size=20, max_size=40).map(
    lambda parts: ["ack", *(step for part in parts for step in part)]
)


@dataclass
class Belief:
    """What may be believed, in the fewest words: kept apart from Kahuna's code."""

    generation: int = 1  # of the machine
    wanted: int = RUNNING
    marked: bool = False
    held: tuple[int, bool] | None = None  # what the agent has stored
    state: int = PENDING
    power: int = 0
    removed: bool = False

    def change(self, wanted: int | None = None) -> None:
        """A new generation: nothing that was said counts for it."""
        self.generation, self.state = self.generation + 1, PENDING
        self.wanted = self.wanted if wanted is None else wanted

    def believes(self, sent: Reported, generation: int) -> bool:
        """Whether a report follows from what the agent holds, and can be true."""
        if self.held is None or not 0 <= generation <= self.held[0] or sent.outcome not in range(1, 5):
            return False
        if sent.content in ("another kind", "nothing"):
            return False
        if sent.gone:  # what else it says is not read
            return self.held == (generation, True) and sent.outcome == APPLIED
        if sent.content == "garbage" or sent.conditions > 16:
            return False
        return sent.content == "no status" or (sent.power in range(4) and sent.restarts <= 1000)

    def take(self, sent: Reported, generation: int) -> None:
        """The consequences of a report that is believed."""
        current, seen = generation == self.generation, sent.content != "no status"
        if sent.gone:
            self.removed = current and self.marked
            return
        self.power = sent.power if seen else self.power
        if sent.outcome == APPLIED and current:
            off_by_guest = seen and sent.by_guest and sent.power == STOPPED
            self.state = READY if self.power in (0, self.wanted) or off_by_guest else PENDING
            if off_by_guest and not self.marked and self.wanted != STOPPED:
                self.change(STOPPED)
        elif sent.outcome == FAILED and current:
            self.state = ERROR
        elif sent.outcome in (WORKING, WAITING) and self.state != ERROR:
            self.state = PENDING


class History:
    """One machine, its agent's session, and what may be believed."""

    def __init__(self, site: Site, counts: Counter[bool]) -> None:
        self.store, self.kinds = site.cloud.kahuna.store, site.cloud.kahuna.kinds
        self.site, self.counts, self.belief = site, counts, Belief()
        self.reports = Reports(self.store, self.kinds)
        self.named = 1  # the generation that the agent says it holds

    async def run(self, steps: list[Any]) -> None:
        await self.store.run(self._add)
        self.sign_in()
        for step in steps:
            await self.step(step)
            if not self.belief.removed:
                self.check(step)
                continue
            assert self.store.view.find("Instance", self.id) is None
            self.belief, self.named = Belief(), 1
            await self.store.run(self._add)
            self.sign_in()
        await self.store.run(lambda tx: tx.remove("Instance", self.id))

    def _add(self, tx: Transaction) -> None:
        agent = tx.lock(agent_pb2.Agent, self.site.agent.meta.id)
        agent.status.epoch = 1
        tx.report("Agent", agent)
        machine = instance_pb2.Instance(
            project=self.site.project.meta.id, name="web", region=self.site.region.meta.id, vcpus=1, memory=1 << 30
        )
        machine.kaktus, machine.power = self.site.host.meta.id, RUNNING
        self.id = tx.add("Instance", machine).meta.id

    def sign_in(self, listed: tuple[int, bool] | None = None) -> None:
        """A new session, in which the agent lists the machine, so that its slice is known and nothing is acked."""
        self.session = Session(self.store.view, self.site.agent.meta.id, "", 1)
        if listed:
            self.session.holdings[self.id] = listed
        self.session.difference()

    async def step(self, step: Any) -> None:
        belief = self.belief
        match step:
            case Reported():
                await self.report(step)
            case Listed():
                claim, current = (belief.generation + step.generation, step.gone), (belief.generation, belief.marked)
                self.sign_in(claim)
                self.named = claim[0]
                older = 0 < claim[0] < current[0] and not step.gone
                belief.held = claim if claim == current or older else None
            case "ack":
                self.difference(lambda sent: self.session.batch_stored(sent[0], sent[1], 1))
                belief.held = belief.generation, belief.marked
                self.named = belief.generation
            case "refuse":
                self.difference(lambda sent: self.session.batch_refused())
            case "send":
                self.difference(lambda sent: None)
            case _ if belief.marked:
                pass
            case "delete":
                await self.store.run(lambda tx: tx.mark("Instance", self.id))
                belief.marked = True
                belief.change()
            case "start" | "stop" | "change":
                await self.store.run(lambda tx: self.put(tx, step))
        self.session.mark_changed(self.id, "Instance")

    def put(self, tx: Transaction, how: str) -> None:
        machine = tx.lock(instance_pb2.Instance, self.id)
        before = machine.meta.generation
        machine.description = f"{before}"
        machine.power = {"start": RUNNING, "stop": STOPPED}.get(how, machine.power)
        assert meta(tx.put("Instance", machine)).generation == before + 1
        self.belief.change(machine.power)

    def difference(self, answer: Callable[[Any], None]) -> None:
        """Sends what the agent lacks, with an answer or without."""
        self.session.mark_changed(self.id, "Instance")
        answer(self.session.difference())

    async def report(self, sent: Reported) -> None:
        generation = sent.generation + self.named
        report = fleet_pb2.Report(id=self.id, observed_generation=generation, gone=sent.gone, message="so it is")
        report.outcome = sent.outcome  # type: ignore[assignment]
        if sent.content != "nothing":
            report.resource.CopyFrom(packed(sent))
        before, dropped = self.store.view.find("Instance", self.id), self.dropped()
        await self.reports.add(self.session, [report])
        await self.reports._commit(self.reports._read(await self.reports._take()))
        believed = self.belief.believes(sent, generation)
        self.counts[believed] += 1
        assert self.dropped() - dropped == (not believed), (sent, self.session.dropped)
        if believed:
            self.belief.take(sent, generation)
        else:
            assert self.store.view.find("Instance", self.id) == before

    def dropped(self) -> int:
        return sum(counted.count for counted in self.session.dropped.values())

    def check(self, step: Any) -> None:
        """Compares what clients see with what may be believed."""
        found = self.store.view.find("Instance", self.id)
        assert isinstance(found, instance_pb2.Instance)
        expected = self.belief
        seen = meta_pb2.STATE_DELETING if expected.marked else expected.state
        assert (found.meta.state, found.meta.generation) == (seen, expected.generation), step
        assert (found.power, found.status.power) == (expected.wanted, expected.power), step


def packed(sent: Reported) -> Packed:
    """The resource of a report."""
    observed = instance_pb2.Instance()
    observed.meta.conditions.extend(meta_pb2.Condition(type=f"Type{number}") for number in range(sent.conditions))
    if sent.content != "no status":
        status = instance_pb2.InstanceStatus(restarts=sent.restarts, guest_powered_off=sent.by_guest)
        status.power = sent.power  # type: ignore[assignment]
        observed.status.CopyFrom(status)
    if sent.content == "another kind":
        return resources.pack(vnet_pb2.Vnet())
    found = resources.pack(observed)
    if sent.content == "garbage":
        found.value = b"\xff\xff"
    return found


def test_kahuna_believes_what_follows_and_nothing_else(site: Site) -> None:
    counts: Counter[bool] = Counter()

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking runs a thousand more histories
    )
    @given(STEPS)
    def follow(steps: list[Any]) -> None:
        history = History(site, counts)
        try:
            site.cloud.loop.run(asyncio.wait_for(history.run(steps), 30))
        except BaseException:
            site.cloud.loop.run(site.cloud.kahuna.store.run(lambda tx: remove(tx, history)))
            raise

    follow()
    assert counts[True] >= 0.3 * counts.total(), "too few reports that can be believed"
    assert counts[False] >= 0.2 * counts.total()


def remove(tx: Transaction, history: History) -> None:
    """Removes the machine of a history that has failed, so that the next one finds its name free."""
    if tx.find("Instance", history.id) is not None:
        tx.remove("Instance", history.id)
