"""What is done once: reboot and reset, begun at most once, and every one gets its end; and consoles."""

import json
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import grpc
import pytest
from sqlmodel import Session, select

from kahuna.audit import show
from kahuna.domain.lifecycle import OPEN
from kahuna.kinds import command as commands
from kahuna.kinds.command import Command
from kahuna.store.transaction import Transaction
from kowa import contract, errors
from kowa.client import Client
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2, operation_pb2
from tests.control_plane import ControlPlane, FakeHost
from tests.site import Site, make_site
from tests.waiting import until


@pytest.fixture
def site(cloud: ControlPlane) -> Site:
    """A site."""
    return make_site(cloud)


def test_a_reboot_is_done_once_and_changes_no_desired_state(site: Site) -> None:
    host = site.registered()
    web = site.client.instances.create(site.wanted("web"))
    rebooted = site.client.instances.reboot(web.meta.id)
    site.client.instances.reset(web.meta.id)
    assert host.done == [("reboot", web.meta.id), ("reset", web.meta.id)]
    assert rebooted.meta.generation == web.meta.generation


def test_a_command_that_the_host_refuses_fails_with_its_reason(site: Site) -> None:
    host = site.registered()
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
    site.cloud.hang_up(agent)
    again = FakeHost()
    site.cloud.dial(site.secret, again)
    until(lambda: site.client.operations.get(begun.operation_id).phase != operation_pb2.PHASE_RUNNING, what="its end")
    ended = site.client.operations.get(begun.operation_id)
    assert (ended.phase, ended.message.partition(":")[0]) == (operation_pb2.PHASE_FAILED, "UNKNOWN")
    assert again.done == []


def test_a_command_for_a_host_that_is_away_waits_and_is_sent_when_it_is_back(site: Site) -> None:
    web = site.away()
    begun = site.client.instances.begin("reboot", web.meta.id)
    back = site.registered()
    assert site.client.operations.wait(begun.operation_id, 60).phase == operation_pb2.PHASE_DONE
    assert back.done == [("reboot", web.meta.id)]


def rows(site: Site) -> list[str]:
    """The commands that have no end yet."""
    with Session(site.cloud.kahuna.store.engine) as session:
        return list(session.exec(select(Command.id)))


def stands(site: Site, operation: str) -> tuple[operation_pb2.Phase, str]:
    """Its phase, and the beginning of what it says."""
    found = site.client.operations.get(operation)
    return found.phase, found.message.partition(":")[0]


def test_a_command_goes_out_in_the_newest_session_only(site: Site) -> None:
    web = site.away()
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
    web = site.away()
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
    clock, store._clock = store._clock, lambda: clock() + 2 * commands.TIME_TO_LIVE
    expiring = site.cloud.loop.start(store.run(commands.expire))
    with pytest.raises(TimeoutError):  # it is held up by the one that takes
        until(expiring.done, limit=0.2)
    go_on.set()
    until(lambda: taking.done() and expiring.done(), what="both")
    assert stands(site, begun)[0] in OPEN
    assert rows(site) == [begun]


def converse(client: Client, id_: str, keys: "Queue[bytes | None]") -> Iterator[bytes]:
    method = contract.load().kinds["Instance"].service.methods["console"]

    def requests() -> Iterator[instance_pb2.ConsoleInstanceRequest]:
        yield instance_pb2.ConsoleInstanceRequest(id=id_)
        while (data := keys.get()) is not None:
            yield instance_pb2.ConsoleInstanceRequest(data=data)

    return (response.data for response in client.converse(method, requests()))


def test_a_console_shows_what_was_printed_and_passes_keys_both_ways(site: Site) -> None:
    site.registered()
    web = site.client.instances.create(site.wanted("web"))
    keys: Queue[bytes | None] = Queue()
    shown = converse(site.client, web.meta.id, keys)
    assert next(shown) == b"login: "
    keys.put(b"root\r")
    assert next(shown) == b"ROOT\r"
    other: Queue[bytes | None] = Queue()
    assert next(converse(site.client, web.meta.id, other)) == b"login: "
    keys.put(None)
    other.put(None)
    finished = threading.Thread(target=lambda: list(shown), daemon=True)
    finished.start()
    finished.join(10)
    assert not finished.is_alive()


@pytest.mark.slow
def test_a_console_of_what_is_not_there_says_so(site: Site) -> None:
    keys: Queue[bytes | None] = Queue()
    keys.put(None)
    with pytest.raises(errors.NotFound):
        next(converse(site.client, "nothing", keys))
    web = site.away()
    with pytest.raises(errors.Unavailable, match="host is not connected"):
        next(converse(site.client, web.meta.id, keys))


def test_who_opened_a_console_is_in_the_audit_trail(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.registered()
    web = site.client.instances.create(site.wanted("web"))
    keys: Queue[bytes | None] = Queue()
    with Client(site.cloud.settings.api, key=site.cloud.key, insecure=True, reason="it does not boot") as client:
        shown = converse(client, web.meta.id, keys)
        assert next(shown) == b"login: "
        keys.put(None)
        list(shown)
    capsys.readouterr()
    show(site.cloud.settings, web.meta.id, days=1)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(line["method"], line["caller"], line["target_name"], line.get("reason")) for line in said] == [
        ("CreateInstance", "admin", "web", None),
        ("ConsoleInstance", "admin", "web", "it does not boot"),
    ]
    assert "operation" not in said[-1]


def test_keys_that_are_no_message_end_the_console_with_the_reason(site: Site) -> None:
    site.registered()
    web = site.client.instances.create(site.wanted("web"))
    method = "/kowa.v2.InstanceService/ConsoleInstance"
    sent: Queue[bytes] = Queue()
    sent.put(instance_pb2.ConsoleInstanceRequest(id=web.meta.id).SerializeToString())
    with grpc.insecure_channel(site.cloud.settings.api) as channel:
        call: Any = channel.stream_stream(method, None, instance_pb2.ConsoleInstanceResponse.FromString)
        shown = call(iter(sent.get, b""), metadata=(("authorization", f"Bearer {site.cloud.key}"),), timeout=20)
        assert next(shown).data == b"login: "
        sent.put(b"\xff\xff\xff")
        with pytest.raises(grpc.RpcError) as ended:
            next(shown)
        assert ended.value.details() == "the request is not a ConsoleInstanceRequest"
        sent.put(b"")
