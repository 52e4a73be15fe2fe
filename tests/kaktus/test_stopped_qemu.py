"""A QEMU that is stopped (SIGSTOP) answers nothing: others take as long as alone, and its power can be cut."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from deploy.guest.build import build
from kowa.fleet.v1 import fleet_pb2
from kowa.v2 import instance_pb2
from tests.fleet_resources import content
from tests.waiting import until

from .hosts import GUEST, Agent, Host, private_host
from .slices import MIB, Slice, id_of, slice_with_network

pytestmark = pytest.mark.libvirt

WEB, DB = id_of("web"), id_of("db")
PARTS = ("web", "db", "root", "data", "guest", "subnet", "vnet", "pool")
SHUTDOWN_TIMEOUT_S = 20  # of the test host's agent
CUT_POWER_S = 25  # libvirt sends SIGTERM first, which a stopped process does not hear, and SIGKILL 10 s later
RUNNING, STOPPED, SUSPENDED = instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED


@pytest.fixture
def host() -> Iterator[Host]:
    build(GUEST)
    with private_host() as host:
        yield host


@pytest.fixture
def wanted(host: Host) -> Slice:
    slice_ = slice_with_network()
    slice_.template("guest", *host.offer_guest())
    slice_.volume("root", 128 * MIB, "guest")
    slice_.volume("data", 128 * MIB, "guest")
    slice_.instance("web", ("root",))
    slice_.instance("db", ("data",))
    return slice_


def has(power: instance_pb2.Power, generation: int) -> Callable[[fleet_pb2.Report], bool]:
    """Whether a report says that this generation has this power."""

    def is_so(report: fleet_pb2.Report) -> bool:
        is_applied = report.outcome == fleet_pb2.OUTCOME_APPLIED and report.observed_generation == generation
        return is_applied and content(report).status.power == power

    return is_so


def seconds_to(agent: Agent, wanted: Slice, name: str, disk: str, power: instance_pb2.Power, limit: float) -> float:
    """Changes an instance's power. Returns the seconds until that is reported."""
    wanted.instance(name, (disk,), power=power)
    began = time.monotonic()
    agent.send(wanted.objects)
    generation = wanted.objects[id_of(name)].generation
    agent.until(id_of(name), has(power, generation), limit)
    return time.monotonic() - began


def test_a_stopped_qemu_delays_no_other_instance_and_is_cut_off_in_time(host: Host, wanted: Slice) -> None:
    told: list[fleet_pb2.Report] = []
    with host.agent(shutdown_limit=SHUTDOWN_TIMEOUT_S) as agent:
        agent.send(wanted.objects)
        for id_ in (WEB, DB):
            agent.until(id_, has(RUNNING, 1), 60)
        until(lambda: "kowabunga: ready" in host.console(DB), timeout=60, what="the guest is ready")
        alone = seconds_to(agent, wanted, "db", "data", STOPPED, 30)
        seconds_to(agent, wanted, "db", "data", RUNNING, 60)
        until(lambda: host.console(DB).count("kowabunga: ready") == 2, timeout=60, what="the guest is ready again")

        pid = int((host.base / f"libvirt/run/qemu/kowa-{WEB}.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        wanted.instance("web", ("root",), power=SUSPENDED)
        agent.send(wanted.objects)
        agent.until(WEB, lambda report: report.message == "suspend web", 10)
        beside = seconds_to(agent, wanted, "db", "data", STOPPED, 30)
        assert beside <= alone + 3, f"{beside:.1f} s beside a stopped QEMU, {alone:.1f} s alone"

        agent.watch(WEB, told)
        taken = seconds_to(agent, wanted, "web", "root", STOPPED, 60)
        assert taken <= SHUTDOWN_TIMEOUT_S + CUT_POWER_S
        assert fleet_pb2.OUTCOME_FAILED not in {report.outcome for report in told}
        wanted.gone(*PARTS)
        agent.send(wanted.objects)
        for name in PARTS:
            agent.until(id_of(name), lambda report: report.gone)


def test_a_stopped_qemu_is_deleted_at_once(host: Host, wanted: Slice) -> None:
    with host.agent() as agent:
        agent.send(wanted.objects)
        agent.until(WEB, has(RUNNING, 1), 60)
        os.kill(int((host.base / f"libvirt/run/qemu/kowa-{WEB}.pid").read_text()), signal.SIGSTOP)
        wanted.instance("web", ("root",), power=SUSPENDED)
        agent.send(wanted.objects)
        agent.until(WEB, lambda report: report.message == "suspend web", 10)
        wanted.gone("web", "root")
        agent.send(wanted.objects)
        agent.until(id_of("root"), lambda report: report.gone, CUT_POWER_S)
