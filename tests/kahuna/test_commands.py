"""What is done once: reboot and reset, begun at most once, and every one gets its end; and consoles."""

import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from kowa import contract, errors
from kowa.v2 import instance_pb2, operation_pb2
from tests.estate import Estate, estate
from tests.waiting import until
from tests.world import PretendHost, World

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def site(cloud: World) -> Estate:
    """A site."""
    return estate(cloud)


def test_a_reboot_is_done_once_and_changes_no_desired_state(site: Estate) -> None:
    host = site.registered()
    web = site.client.instances.create(site.wanted("web"))
    rebooted = site.client.instances.reboot(web.meta.id)
    site.client.instances.reset(web.meta.id)
    assert host.done == [("reboot", web.meta.id), ("reset", web.meta.id)]
    assert rebooted.meta.generation == web.meta.generation


def test_a_command_that_the_host_refuses_fails_with_its_reason(site: Estate) -> None:
    host = site.registered()
    web = site.client.instances.create(site.wanted("web"))
    host.refuses_commands = "domain is not running"
    with pytest.raises(errors.OperationFailed, match="domain is not running"):
        site.client.instances.reboot(web.meta.id)


def test_a_command_interrupted_by_the_end_of_its_agent_is_unknown_and_not_done_again(site: Estate) -> None:
    host = PretendHost()
    host.hangs.set()
    agent = site.cloud.dial(site.secret, host)
    until(lambda: site.client.kaktuses.get(site.host.meta.id).status.memory, what="the host's capacity")
    web = site.client.instances.create(site.wanted("web"))
    begun = site.client.instances.begin("reset", web.meta.id)
    until(lambda: host.done, what="the command to be begun")
    site.cloud.hang_up(agent)
    again = PretendHost()
    site.cloud.dial(site.secret, again)
    until(lambda: site.client.operations.get(begun.operation_id).phase != operation_pb2.PHASE_RUNNING, what="its end")
    ended = site.client.operations.get(begun.operation_id)
    assert (ended.phase, ended.message.partition(":")[0]) == (operation_pb2.PHASE_FAILED, "UNKNOWN")
    assert again.done == []


def test_a_command_for_a_host_that_is_away_waits_and_is_sent_when_it_is_back(site: Estate) -> None:
    web = site.away()
    begun = site.client.instances.begin("reboot", web.meta.id)
    back = site.registered()
    assert site.client.operations.wait(begun.operation_id, 10).phase == operation_pb2.PHASE_DONE
    assert back.done == [("reboot", web.meta.id)]


def converse(site: Estate, id_: str, keys: "Queue[bytes | None]") -> Iterator[bytes]:
    method = contract.load().kinds["Instance"].service.methods["console"]

    def requests() -> Iterator[instance_pb2.ConsoleInstanceRequest]:
        yield instance_pb2.ConsoleInstanceRequest(id=id_)
        while (data := keys.get()) is not None:
            yield instance_pb2.ConsoleInstanceRequest(data=data)

    return (response.data for response in site.client.converse(method, requests()))


def test_a_console_shows_what_was_printed_and_passes_keys_both_ways(site: Estate) -> None:
    site.registered()
    web = site.client.instances.create(site.wanted("web"))
    keys: Queue[bytes | None] = Queue()
    shown = converse(site, web.meta.id, keys)
    assert next(shown) == b"login: "
    keys.put(b"root\r")
    assert next(shown) == b"ROOT\r"
    other: Queue[bytes | None] = Queue()
    assert next(converse(site, web.meta.id, other)) == b"login: "
    keys.put(None)
    other.put(None)
    finished = threading.Thread(target=lambda: list(shown), daemon=True)
    finished.start()
    finished.join(10)
    assert not finished.is_alive()


def test_a_console_of_what_is_not_there_says_so(site: Estate) -> None:
    keys: Queue[bytes | None] = Queue()
    keys.put(None)
    with pytest.raises(errors.NotFound):
        next(converse(site, "nothing", keys))
    web = site.away()
    with pytest.raises(errors.Unavailable, match="host is not connected"):
        next(converse(site, web.meta.id, keys))
