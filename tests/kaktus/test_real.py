"""The agent with a real libvirt and real guests, in a network namespace of its own."""

import os
import shutil
import signal
from collections.abc import Iterator

import pytest

from agent_kaktus import names
from deploy.guest.build import build
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2
from tests.fleet_resources import content
from tests.waiting import until

from .hosts import GUEST, Agent, Host, private_host
from .slices import MIB, Slice, id_of, slice_with_network

pytestmark = pytest.mark.libvirt

WEB = id_of("web")
PARTS_OF_WEB = ("web", "nic", "root", "guest", "subnet", "vnet", "pool")
BOOT_TIMEOUT_S = 60.0  # on a busy machine
APPLIED, WAITING, FAILED = fleet_pb2.OUTCOME_APPLIED, fleet_pb2.OUTCOME_WAITING, fleet_pb2.OUTCOME_FAILED
RUNNING, STOPPED = instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    build(GUEST)
    with private_host() as host:
        yield host


@pytest.fixture
def wanted(host: Host) -> Iterator[Slice]:
    """A slice with instance web; afterwards all of it is removed from the host."""
    slice_ = slice_with_network()
    name, checksum = host.offer_guest()
    slice_.template("guest", name, checksum)
    slice_.volume("root", 128 * MIB, "guest")
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root",), ("nic",), metadata={"proof": "mine"})
    yield slice_
    slice_.gone(*PARTS_OF_WEB)
    with host.agent() as agent:
        agent.send(slice_.objects)
        for name in PARTS_OF_WEB:
            agent.until(id_of(name), lambda report: report.gone)
    shutil.rmtree(host.state / "made")


def is_running(report: fleet_pb2.Report) -> bool:
    return report.outcome == APPLIED and content(report).status.power == RUNNING


def is_off(report: fleet_pb2.Report) -> bool:
    return report.outcome == APPLIED and content(report).status.power == STOPPED


def await_boot(host: Host, times: int = 1) -> str:
    """Waits until the guest has booted so many times; returns its console output."""
    until(
        lambda: host.console(WEB).count("kowabunga: ready") >= times, timeout=BOOT_TIMEOUT_S, what="the guest is ready"
    )
    return host.console(WEB)


def send_until_running(agent: Agent, wanted: Slice) -> None:
    agent.send(wanted.objects)
    agent.until(WEB, is_running, BOOT_TIMEOUT_S)


def test_an_instance_boots_answers_and_leaves_nothing(host: Host, wanted: Slice) -> None:
    with host.agent(hold_gateway=True) as agent:
        send_until_running(agent, wanted)
        printed = await_boot(host)
        assert "kowabunga: hostname=web" in printed
        assert f"kowabunga: instance-id={WEB}" in printed
        assert "kowabunga: proof=mine" in printed
        assert f"disk vda={128 * MIB}" in printed
        assert "1 received" in host.run("ping", "-c", "1", "-W", "5", "10.9.0.2")
        wanted.gone(*PARTS_OF_WEB)
        agent.send(wanted.objects)
        for name in PARTS_OF_WEB:
            agent.until(id_of(name), lambda report: report.gone)
        status = content(agent.reports[id_of("host")]).status
        assert status.strangers == []
        assert status.cpu_flags == sorted(status.cpu_flags) != []
        assert sum(node.memory for node in status.numa_nodes) == status.memory
    assert host.virsh("list", "--all", "--name") == ""
    assert host.run("nft", "list", "ruleset") == ""
    assert [line.split()[0] for line in host.run("ip", "-br", "link").splitlines()] == ["lo"]
    assert [path for place in (host.pools, host.instances) for path in place.iterdir()] == []


def test_a_restart_of_the_agent_leaves_instances_running(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        process = host.guest_pids()
    with host.agent() as agent:
        send_until_running(agent, wanted)
        assert host.guest_pids() == process
    assert await_boot(host).count("kowabunga: ready") == 1


def test_a_killed_agent_goes_on_after_its_restart(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        agent.send(wanted.objects)
        agent.until(WEB, lambda report: report.outcome == fleet_pb2.OUTCOME_WORKING)
        agent.kill()
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)


def test_an_instance_destroyed_by_hand_comes_back(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        host.virsh("destroy", names.domain(WEB))
        agent.until(WEB, lambda report: is_running(report) and content(report).status.restarts == 1)
        await_boot(host, 2)
        host.virsh("destroy", names.domain(WEB))
        host.virsh("undefine", names.domain(WEB))
        kept = ("list", "--persistent", "--state-running", "--name")
        until(lambda: names.domain(WEB) in host.virsh(*kept), timeout=BOOT_TIMEOUT_S, what="it is defined and runs")


def panic(host: Host, console: str) -> None:
    """Panics the guest by its shell on the serial console, which QEMU reads only while somebody has it open."""
    descriptor = os.open(console, os.O_WRONLY | os.O_NOCTTY)
    os.write(descriptor, f"{PANIC}\n".encode())
    until(lambda: "Kernel panic" in host.console(WEB), timeout=BOOT_TIMEOUT_S, what="the guest has panicked")
    os.close(descriptor)


SENSOR = "/sys/bus/platform/drivers/pvpanic-mmio/QEMU0001:00"
PANIC = f"until [ -e {SENSOR} ]; do usleep 20000; done; echo c >/proc/sysrq-trigger"


def test_a_guest_that_panics_is_started_again(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        panic(host, host.virsh("ttyconsole", names.domain(WEB)))
        agent.until(WEB, lambda report: is_running(report) and content(report).status.restarts == 1)
        await_boot(host, 2)


def test_a_guest_that_panics_while_libvirt_is_down_is_started_again(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        console = host.virsh("ttyconsole", names.domain(WEB))
        host.kill_libvirtd()
        panic(host, console)
        host.start_libvirtd()
        agent.until(WEB, lambda report: is_running(report) and content(report).status.restarts == 1, 60)
        await_boot(host, 2)


def test_a_domain_created_by_hand_is_reported_and_left_alone(host: Host, wanted: Slice) -> None:
    stranger = "<domain type='qemu'><name>mine</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    (host.base / "mine.xml").write_text(stranger)
    host.virsh("create", str(host.base / "mine.xml"))
    try:
        with host.agent() as agent:
            send_until_running(agent, wanted)
            found = agent.until(id_of("host"), lambda report: bool(content(report).status.strangers))
            assert content(found).status.strangers == ["domain mine"]
            wanted.forget("web")
            agent.send(wanted.objects)
            both = ["domain kowa-" + WEB, "domain mine"]
            agent.until(id_of("host"), lambda report: content(report).status.strangers == both)
            assert host.virsh("domstate", names.domain(WEB)) == "running"
            assert host.virsh("domstate", "mine") == "running"
    finally:
        host.virsh("destroy", "mine")
        wanted.instance("web", ("root",), ("nic",))


def test_an_instance_is_suspended_stopped_and_started(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        for power, shown in (
            (instance_pb2.POWER_SUSPENDED, "paused"),
            (RUNNING, "running"),
            (STOPPED, "shut off"),
            (RUNNING, "running"),
        ):
            wanted.instance("web", ("root",), ("nic",), power=power)
            generation = wanted.objects[WEB].generation
            agent.send(wanted.objects)
            agent.until(WEB, lambda report, at=generation: report.observed_generation == at)  # type: ignore[misc]
            assert host.virsh("domstate", names.domain(WEB)) == shown
        await_boot(host, 2)


def test_an_instance_that_does_not_shut_down_is_cut_off(host: Host, wanted: Slice) -> None:
    with host.agent(shutdown_limit=2) as agent:
        agent.send(wanted.objects)
        agent.until(WEB, is_running, BOOT_TIMEOUT_S)  # in its boot loader, which ignores the power button
        wanted.instance("web", ("root",), ("nic",), power=STOPPED)
        agent.send(wanted.objects)
        agent.until(WEB, is_off)


def test_a_guest_that_powers_itself_off_stays_off(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        host.virsh("shutdown", names.domain(WEB))
        report = agent.until(WEB, is_off)
        assert [condition.type for condition in content(report).meta.conditions] == ["GuestPoweredOff"]
    with host.agent() as agent:
        agent.send(wanted.objects)
        agent.until(WEB, is_off)
        wanted.instance("web", ("root",), ("nic",))
        agent.send(wanted.objects)
        agent.until(WEB, is_running)


def test_an_instance_comes_back_after_its_process_is_terminated(host: Host, wanted: Slice) -> None:
    """Libvirt reports it in the same way as a guest that powers itself off."""
    with host.agent() as agent:
        send_until_running(agent, wanted)
        os.kill(host.guest_pids()[0], signal.SIGTERM)
        agent.until(WEB, lambda report: is_running(report) and content(report).status.restarts == 1)


def test_a_volume_grows_while_it_is_used(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        wanted.volume("root", 256 * MIB, "guest")
        agent.send(wanted.objects)
        agent.until(id_of("root"), lambda report: content(report).status.size == 256 * MIB)
        assert str(256 * MIB) in host.virsh("domblkinfo", names.domain(WEB), "vda")
        wanted.instance("web", ("root",), ("nic",), power=STOPPED)
        agent.send(wanted.objects)
        agent.until(WEB, is_off, BOOT_TIMEOUT_S)
        wanted.volume("root", 320 * MIB, "guest")
        agent.send(wanted.objects)
        agent.until(id_of("root"), lambda report: content(report).status.size == 320 * MIB)


def test_a_change_of_a_running_instance_waits_for_its_next_start(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        wanted.instance("web", ("root",), ("nic",), memory=160 * MIB)
        agent.send(wanted.objects)
        report = agent.until(WEB, lambda report: report.observed_generation == 2)
        assert [condition.type for condition in content(report).meta.conditions] == ["RestartRequired"]
        for power in (STOPPED, RUNNING):
            wanted.instance("web", ("root",), ("nic",), memory=160 * MIB, power=power)
            agent.send(wanted.objects)
            report = agent.until(WEB, is_off if power == STOPPED else is_running, BOOT_TIMEOUT_S)
        assert not content(report).meta.conditions
        assert f"{160 * 1024} KiB" in host.virsh("dominfo", names.domain(WEB))


def test_a_missing_disk_is_reported_and_not_created_again(host: Host, wanted: Slice) -> None:
    path = host.pools / id_of("pool") / f"{id_of('root')}.qcow2"
    with host.agent() as agent:
        wanted.instance("web", ("root",), ("nic",), power=STOPPED)
        agent.send(wanted.objects)
        agent.until(WEB, is_off)
        path.rename(host.base / "away")
        wanted.instance("web", ("root",), ("nic",))
        agent.send(wanted.objects)
        report = agent.until(id_of("root"), lambda report: report.outcome == FAILED)
        assert "is missing and never made anew" in report.message
        agent.until(WEB, lambda report: report.outcome == WAITING)
        assert not path.exists()
        (host.base / "away").rename(path)
        wanted.instance("web", ("root",), ("nic",))
        agent.send(wanted.objects)
        agent.until(WEB, is_running)


def test_an_instance_outlives_a_crash_of_libvirt(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        send_until_running(agent, wanted)
        process = host.guest_pids()
        host.kill_libvirtd()
        report = agent.until(WEB, lambda report: report.outcome == WAITING)
        assert "libvirt" in report.message
        host.start_libvirtd()
        agent.until(WEB, is_running, 40)
        assert host.guest_pids() == process


def test_a_guest_sends_with_its_own_addresses_only(host: Host, wanted: Slice) -> None:
    """Filters apply before its first instruction; removed ones are put back, and until then all is dropped."""
    with host.agent(hold_gateway=True) as agent:
        send_until_running(agent, wanted)
        await_boot(host)
        tap = names.tap(id_of("nic"))
        assert "1 received" in host.run("ping", "-c", "1", "-W", "5", "10.9.0.2")
        host.run("nft", "flush", "table", "netdev", names.filter_table(id_of("host")))
        assert host.run("ping", "-c", "1", "-W", "1", "10.9.0.2", check=False) == ""
        wanted.vnet()  # any change makes the agent observe its host
        agent.send(wanted.objects)
        chain = ("nft", "list", "chain", "netdev", names.filter_table(id_of("host")), tap)
        until(lambda: "10.9.0.2" in host.run(*chain), what="its tap is filtered again")
        assert "1 received" in host.run("ping", "-c", "1", "-W", "5", "10.9.0.2")
