"""A made-up kind: its module in the list of kinds is all that the agent needs to act on it."""

import asyncio
from typing import Any

from agent_kaktus.kinds import KINDS
from kowa.runtime.kind import Kinds
from tests.fleet_resources import content
from tests.made_up import made_up
from tests.made_up.agent import Balancers

from .loop_harness import APPLIED, FAILED, WAITING, LoopHarness, two_instances
from .slices import id_of

FRONT = id_of("front")


class HarnessWithBalancers(LoopHarness):
    """A harness whose host also has balancers."""

    def __init__(self) -> None:
        super().__init__(two_instances(), Kinds(*KINDS, Balancers()))
        self.balancers: dict[str, Any] = {}
        self.observed_host.balancers = self.host.balancers = self.balancers  # type: ignore[attr-defined]

    def put_balancer(self, *weights: int) -> None:
        members = [{"kaktus": id_of("host"), "weight": weight} for weight in weights]
        self.feed.slice.put("front", made_up().stub("made_up.v1.Balancer")(name="front", members=members))


def test_the_kind_is_parsed_planned_applied_and_reported() -> None:
    async def scenario() -> None:
        harness = HarnessWithBalancers()
        harness.put_balancer(1, 2)
        await harness.converge()
        assert "spread calls of front" in harness.steps_done
        assert harness.balancers[FRONT] == ((id_of("host"), 1), (id_of("host"), 2))
        assert (harness.report("front").outcome, content(harness.report("front")).status.calls) == (APPLIED, 2)
        assert harness.report("web").outcome == APPLIED
        harness.put_balancer(3)
        await harness.converge()
        assert harness.steps_done == ["spread calls of front"]
        harness.feed.slice.gone("front")
        await harness.converge()
        assert harness.steps_done == ["remove balancer front"]
        assert harness.report("front").gone

    asyncio.run(scenario())


def test_its_failures_are_retried_and_its_strangers_reported() -> None:
    async def scenario() -> None:
        harness = HarnessWithBalancers()
        harness.put_balancer(1)
        harness.step_errors["spread calls of front"] = OSError("no ports left")
        await harness.converge()
        assert (harness.report("front").outcome, harness.report("front").message) == (
            WAITING,
            "tries again: spread calls of front: no ports left",
        )
        for _ in range(5):
            await harness.converge(elapsed=60)
        assert harness.report("front").outcome == FAILED
        harness.balancers[id_of("stray")] = ()
        await harness.converge()
        assert f"balancer {id_of('stray')}" in content(harness.report("host")).status.strangers

    asyncio.run(scenario())
