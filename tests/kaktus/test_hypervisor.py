"""A real libvirt: how it reports the end of a guest, and calls that hang in it."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import libvirt
import pytest

from agent_kaktus.compute import hypervisor
from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.errors import LibvirtUnavailable
from kowa.runtime.errors import StepFailed
from tests.fleet_resources import content

from .hosts import Host, private_host
from .slices import id_of, slice_with_network

pytestmark = pytest.mark.libvirt

WEB, DB = id_of("web"), id_of("db")
Scenario = Callable[[Hypervisor], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with private_host() as host:
        yield host


@pytest.fixture
def instances(host: Host) -> Iterator[None]:
    """Two instances that do nothing."""
    for id_ in (WEB, DB):
        path = host.base / f"{id_}.xml"
        path.write_text(
            f"<domain type='qemu'><name>kowa-{id_}</name><uuid>{id_}</uuid><memory>32768</memory>"
            "<os><type>hvm</type></os><features><acpi/></features></domain>"
        )
        host.virsh("define", str(path))
        host.virsh("start", f"kowa-{id_}")
    yield
    for pid in host.guest_pids():
        os.kill(pid, signal.SIGKILL)
    for id_ in (WEB, DB):
        host.virsh("destroy", f"kowa-{id_}", check=False)
        host.virsh("undefine", f"kowa-{id_}", check=False)


class Halted:
    """A domain that QEMU could not resume; libvirt reports it only as paused."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.is_destroyed = False

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN

    def resume(self) -> None:
        raise libvirt.libvirtError(self.reason)

    def destroy(self) -> None:
        self.is_destroyed = True


def test_a_domain_that_needs_a_reset_is_destroyed_for_a_new_start() -> None:
    halted = Halted("unable to execute QEMU command 'cont': Resetting the Virtual Machine is required")
    hypervisor._resume(halted)
    assert halted.is_destroyed
    other = Halted("unable to execute QEMU command 'cont': Migration is not finalized yet")
    with pytest.raises(libvirt.libvirtError, match="Migration"):
        hypervisor._resume(other)
    assert not other.is_destroyed


def run_with(host: Host, scenario: Scenario) -> None:
    async def run() -> None:
        connection = Hypervisor(host.uri, lambda: None)
        try:
            await scenario(connection)
        finally:
            await connection.close()

    asyncio.run(run())


def pid_of(host: Host, id_: str) -> int:
    return int((host.base / f"libvirt/run/qemu/kowa-{id_}.pid").read_text())


async def is_powered_off_by_guest(connection: Hypervisor, id_: str) -> bool:
    """Waits until it is off; returns whether libvirt reports that its guest did it."""
    async with asyncio.timeout(20):
        while True:
            found = next(domain for domain in await connection.observe() if domain.id == id_)
            if not found.is_on:
                return found.powered_off
            await asyncio.sleep(0.05)


def test_a_hung_instance_delays_no_other(host: Host, instances: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(connection: Hypervisor) -> None:
        await connection.observe()
        os.kill(pid_of(host, WEB), signal.SIGSTOP)
        monkeypatch.setattr(hypervisor, "_CALL_TIMEOUT_S", 1.0)
        with pytest.raises(StepFailed, match="libvirt did not answer within 1 s"):
            await connection.suspend(WEB)
        monkeypatch.setattr(hypervisor, "_CALL_TIMEOUT_S", 30.0)
        started = time.monotonic()
        with pytest.raises(StepFailed, match="has not answered an earlier call yet"):
            await connection.reset(WEB)
        await connection.suspend(DB)
        await connection.resume(DB)
        assert {domain.id: domain.is_on for domain in await connection.observe()} == {WEB: True, DB: True}
        assert time.monotonic() - started < 10
        await connection.cut_power(WEB)
        assert not await is_powered_off_by_guest(connection, WEB)
        async with asyncio.timeout(10):
            while True:
                try:
                    await connection.undefine(WEB)
                    break
                except StepFailed:
                    await asyncio.sleep(0.05)

    run_with(host, scenario)


def test_a_killed_process_does_not_count_as_powered_off_by_its_guest(host: Host, instances: None) -> None:
    async def scenario(connection: Hypervisor) -> None:
        await connection.observe()
        os.kill(pid_of(host, WEB), signal.SIGTERM)
        assert not await is_powered_off_by_guest(connection, WEB)
        await connection.start(WEB)
        await connection.resume(WEB)
        os.kill(pid_of(host, WEB), signal.SIGKILL)
        assert not await is_powered_off_by_guest(connection, WEB)

    run_with(host, scenario)


def test_a_hung_libvirt_is_unavailable(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(connection: Hypervisor) -> None:
        monkeypatch.setattr(hypervisor, "_OPEN_TIMEOUT_S", 0.5)
        monkeypatch.setattr(hypervisor, "_CLOSE_TIMEOUT_S", 0.5)
        daemon = int((host.base / "libvirt/run/libvirtd.pid").read_text())
        os.kill(daemon, signal.SIGSTOP)
        try:
            with pytest.raises(LibvirtUnavailable, match=r"can't be reached: libvirt did not answer within 0\.5 s"):
                await connection.observe()
            with pytest.raises(LibvirtUnavailable, match="has not answered an earlier call yet"):
                await connection.observe()
            started = time.monotonic()
            await connection.close()
            assert time.monotonic() - started < 2
        finally:
            os.kill(daemon, signal.SIGCONT)
        await asyncio.sleep(0.5)
        assert await connection.observe() == []

    run_with(host, scenario)


def test_the_agent_exits_although_libvirt_hangs(host: Host, instances: None) -> None:
    with host.agent() as agent:
        slice_ = slice_with_network()
        agent.send(slice_.objects)
        agent.until(id_of("host"), lambda report: len(content(report).status.strangers) == 2)
        daemon = int((host.base / "libvirt/run/libvirtd.pid").read_text())
        os.kill(daemon, signal.SIGSTOP)
        try:
            slice_.vnet()
            agent.send(slice_.objects)  # it observes, and gets no answer
            time.sleep(1)
            agent.stop()
        finally:
            os.kill(daemon, signal.SIGCONT)
