"""What is done once: reboot and reset, begun at most once, and every one gets its end."""

import threading
from collections.abc import Callable

import pytest
from sqlmodel import Session, select

from kahuna.domain.lifecycle import OPEN
from kahuna.kinds import command as commands
from kahuna.kinds.command import Command
from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import operation_pb2
from tests.control_plane import ControlPlane, FakeHost
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site."""
    return make_site(cloud)


def test_a_reboot_is_done_once_and_changes_no_desired_state(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    rebooted = site.client.instances.reboot(web.meta.id)
    site.client.instances.reset(web.meta.id)
    assert host.done == [("reboot", web.meta.id), ("reset", web.meta.id)]
    assert rebooted.meta.generation == web.meta.generation


def test_a_command_that_the_host_refuses_fails_with_its_reason(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    host.refuses_commands = "domain is not running"
    with pytest.raises(errors.OperationFailed, match="domain is not running"):
        site.client.instances.reboot(web.meta.id)


def test_a_command_interrupted_by_the_end_of_its_agent_is_unknown_and_not_done_again(site: Site) -> None:
    host = FakeHost()
    host.hangs.set()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    begun = site.client.instances.begin("reset", web.meta.id)
    until(lambda: host.done, what="the command to be begun")
    site.cloud.disconnect(agent)
    again = FakeHost()
    site.cloud.dial(site.secret, again)
    until(lambda: site.client.operations.get(begun.operation_id).phase != operation_pb2.PHASE_RUNNING, what="its end")
    ended = site.client.operations.get(begun.operation_id)
    assert (ended.phase, ended.message.partition(":")[0]) == (operation_pb2.PHASE_FAILED, "UNKNOWN")
    assert again.done == []


def test_a_command_for_a_host_that_is_away_waits_and_is_sent_when_it_is_back(site: Site) -> None:
    web = site.running_on_lost_host()
    begun = site.client.instances.begin("reboot", web.meta.id)
    back = site.connect_host()
    assert site.client.operations.wait(begun.operation_id, 60).phase == operation_pb2.PHASE_DONE
    assert back.done == [("reboot", web.meta.id)]


def rows(site: Site) -> list[str]:
    """The commands that have no end yet."""
    with Session(site.cloud.kahuna.store.engine) as session:
        return list(session.exec(select(Command.id)))


def phase_and_reason(site: Site, operation: str) -> tuple[operation_pb2.Phase, str]:
    """Its phase, and the beginning of what it says."""
    found = site.client.operations.get(operation)
    return found.phase, found.message.partition(":")[0]


def test_a_command_goes_out_in_the_newest_session_only(site: Site) -> None:
    web = site.running_on_lost_host()
    begun = site.client.instances.begin("reset", web.meta.id).operation_id
    store, agent = site.cloud.kahuna.store, site.agent.meta.id
    epoch = site.client.agents.get(agent).status.epoch

    def ask(question: Callable[[Transaction, str, int], list[fleet_pb2.Command]], epoch: int) -> list[str]:
        answer = site.cloud.loop.run(store.run(lambda tx: question(tx, agent, epoch)))
        return [command.id for command in answer]

    assert [ask(commands.take, other) for other in (epoch - 1, epoch + 1)] == [[], []]
    assert [ask(commands.take, epoch), ask(commands.take, epoch)] == [[begun], []]
    assert [ask(commands.recall, other) for other in (epoch - 1, epoch)] == [[], [begun]]


def test_a_command_that_is_being_sent_does_not_expire(site: Site) -> None:
    """House keeping comes by while the transaction that takes the command has not ended yet."""
    web = site.running_on_lost_host()
    begun = site.client.instances.begin("reset", web.meta.id).operation_id
    store, agent = site.cloud.kahuna.store, site.agent.meta.id
    epoch = site.client.agents.get(agent).status.epoch
    taken, go_on = threading.Event(), threading.Event()

    def take(tx: Transaction) -> None:
        assert commands.take(tx, agent, epoch)
        taken.set()
        assert go_on.wait(60)

    taking = site.cloud.loop.start(store.run(take))
    assert taken.wait(60)
    clock, store._clock = store._clock, lambda: clock() + 2 * commands.TIME_TO_LIVE_US
    expiring = site.cloud.loop.start(store.run(commands.expire))
    with pytest.raises(TimeoutError):  # it is held up by the one that takes
        until(expiring.done, timeout=0.2)
    go_on.set()
    until(lambda: taking.done() and expiring.done(), what="both")
    assert phase_and_reason(site, begun)[0] in OPEN
    assert rows(site) == [begun]
