"""Commands (reboot, reset): carried out at most once, and each operation ends."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from sqlmodel import Session, select

from kahuna.domain.lifecycle import OPEN_PHASES
from kahuna.fleet.sign_ins import Opened, SignIn
from kahuna.kinds import command as commands
from kahuna.kinds.command import Command
from kahuna.store.transaction import Transaction
from kowa import errors
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import operation_pb2
from tests.control_plane import ControlPlane, FakeWorker
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site whose host has not connected."""
    return make_site(cloud)


def test_a_command_is_carried_out_once_and_keeps_the_generation(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    rebooted = site.client.instances.reboot(web.meta.id)
    site.client.instances.reset(web.meta.id)
    assert host.done == [("reboot", web.meta.id), ("reset", web.meta.id)]
    assert rebooted.meta.generation == web.meta.generation


def test_a_command_that_the_host_refuses_fails_with_its_reason(site: Site) -> None:
    host = site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    host.command_error = "domain is not running"
    with pytest.raises(errors.OperationFailed, match="domain is not running"):
        site.client.instances.reboot(web.meta.id)


def test_a_command_whose_agent_ends_meanwhile_is_unknown_and_not_repeated(site: Site) -> None:
    host = FakeWorker()
    host.hangs.set()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    started = site.client.instances.begin("reset", web.meta.id)
    until(lambda: host.done, what="the start of the command")
    site.cloud.disconnect(agent)
    restarted = FakeWorker()
    site.cloud.dial(site.secret, restarted)
    until(
        lambda: site.client.operations.get(started.operation_id).phase != operation_pb2.PHASE_RUNNING, what="its result"
    )
    operation = site.client.operations.get(started.operation_id)
    assert (operation.phase, operation.message.partition(":")[0]) == (operation_pb2.PHASE_FAILED, "UNKNOWN")
    assert restarted.done == []


def test_a_command_for_an_offline_host_is_sent_when_it_reconnects(site: Site) -> None:
    web = site.running_on_lost_host()
    started = site.client.instances.begin("reboot", web.meta.id)
    host = site.connect_host()
    assert site.client.operations.wait(started.operation_id, 60).phase == operation_pb2.PHASE_DONE
    assert host.done == [("reboot", web.meta.id)]


def open_commands(site: Site) -> list[str]:
    """The ids of the commands without a result."""
    with Session(site.cloud.kahuna.store.engine) as session:
        return list(session.exec(select(Command.id)))


def phase_and_reason(site: Site, operation: str) -> tuple[operation_pb2.Phase, str]:
    """An operation's phase, and the reason code at the start of its message."""
    found = site.client.operations.get(operation)
    return found.phase, found.message.partition(":")[0]


def test_a_command_is_sent_in_the_newest_session_only(site: Site) -> None:
    web = site.running_on_lost_host()
    started = site.client.instances.begin("reset", web.meta.id).operation_id
    store, agent = site.cloud.kahuna.store, site.agent.meta.id
    epoch = site.client.agents.get(agent).status.epoch

    def query(function: Callable[[Transaction, str, int], list[fleet_pb2.Command]], epoch: int) -> list[str]:
        found = site.cloud.loop.run(store.run(lambda tx: function(tx, agent, epoch)))
        return [command.id for command in found]

    assert [query(commands.take, other) for other in (epoch - 1, epoch + 1)] == [[], []]
    assert [query(commands.take, epoch), query(commands.take, epoch)] == [[started], []]
    # A recall asks for the result of a command sent in an earlier session.
    assert [query(commands.recall, other) for other in (epoch - 1, epoch)] == [[], [started]]


def test_a_command_does_not_expire_while_it_is_being_sent(site: Site) -> None:
    """The expiry runs while the transaction that takes the command is still open."""
    web = site.running_on_lost_host()
    started = site.client.instances.begin("reset", web.meta.id).operation_id
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
    with pytest.raises(TimeoutError):  # it waits for the transaction that takes the command
        until(expiring.done, timeout=0.2)
    go_on.set()
    until(lambda: taking.done() and expiring.done(), what="both transactions")
    assert phase_and_reason(site, started)[0] in OPEN_PHASES
    assert open_commands(site) == [started]


def test_a_command_that_comes_while_its_agent_signs_in_again_is_sent(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.connect_host()
    web = site.client.instances.create(site.wanted("web"))
    sign_ins = site.cloud.kahuna.fleet._sign_ins
    opened = sign_ins.open

    async def open_slowly(sign_in: SignIn) -> Opened:
        monkeypatch.setattr(sign_ins, "open", opened)
        found = await opened(sign_in)
        await asyncio.to_thread(site.client.instances.begin, "reboot", web.meta.id)
        return found

    monkeypatch.setattr(sign_ins, "open", open_slowly)
    again = FakeWorker()
    site.cloud.dial(site.secret, again, "again")
    until(lambda: again.done == [("reboot", web.meta.id)], what="the command in the newer session")
