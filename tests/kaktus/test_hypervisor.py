"""Libvirt itself: what it reports of a guest's end, and calls that hang in it."""

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
from agent_kaktus.errors import LibvirtUnavailable, StepFailed
from tests.fleet_resources import content

from .hosts import Host, private_host
from .slices import id_of, slice_with_network

pytestmark = pytest.mark.libvirt

WEB, DB = id_of("web"), id_of("db")
Story = Callable[[Hypervisor], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with private_host() as made:
        yield made


@pytest.fixture
def machines(host: Host) -> Iterator[None]:
    """Two that do nothing."""
    for id_ in (WEB, DB):
        path = host.base / f"{id_}.xml"
        path.write_text(
            f"<domain type='qemu'><name>kowa-{id_}</name><uuid>{id_}</uuid><memory>32768</memory>"
            "<os><type>hvm</type></os><features><acpi/></features></domain>"
        )
        host.virsh("define", str(path))
        host.virsh("start", f"kowa-{id_}")
    yield
    for pid in host.guests():
        os.kill(pid, signal.SIGKILL)
    for id_ in (WEB, DB):
        host.virsh("destroy", f"kowa-{id_}", check=False)
        host.virsh("undefine", f"kowa-{id_}", check=False)


class Halted:
    """A domain whose processor QEMU could not go on with: of that libvirt says only that it is paused."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.is_destroyed = False

    def state(self) -> tuple[int, int]:
        return libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN

    def resume(self) -> None:
        raise libvirt.libvirtError(self.reason)

    def destroy(self) -> None:
        self.is_destroyed = True


def test_a_machine_that_needs_a_reset_is_switched_off_to_be_started_again() -> None:
    halted = Halted("unable to execute QEMU command 'cont': Resetting the Virtual Machine is required")
    hypervisor._resume(halted)
    assert halted.is_destroyed
    other = Halted("unable to execute QEMU command 'cont': Migration is not finalized yet")
    with pytest.raises(libvirt.libvirtError, match="Migration"):
        hypervisor._resume(other)
    assert not other.is_destroyed


def run_with(host: Host, story: Story) -> None:
    async def run() -> None:
        made = Hypervisor(host.uri, lambda: None)
        try:
            await story(made)
        finally:
            await made.close()

    asyncio.run(run())


def process(host: Host, id_: str) -> int:
    return int((host.base / f"libvirt/run/qemu/kowa-{id_}.pid").read_text())


async def ended(made: Hypervisor, id_: str) -> bool:
    """Whether it left by itself, once it is off."""
    async with asyncio.timeout(20):
        while True:
            found = next(domain for domain in await made.observe() if domain.id == id_)
            if not found.is_on:
                return found.powered_off
            await asyncio.sleep(0.05)


def test_one_machine_that_hangs_delays_no_other(host: Host, machines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Hypervisor) -> None:
        await made.observe()
        os.kill(process(host, WEB), signal.SIGSTOP)
        monkeypatch.setattr(hypervisor, "_CALL_TIMEOUT_S", 1.0)
        with pytest.raises(StepFailed, match="libvirt did not answer within 1 s"):
            await made.suspend(WEB)
        monkeypatch.setattr(hypervisor, "_CALL_TIMEOUT_S", 30.0)
        began = time.monotonic()
        with pytest.raises(StepFailed, match="has not answered an earlier call yet"):
            await made.reset(WEB)
        await made.suspend(DB)
        await made.resume(DB)
        assert {domain.id: domain.is_on for domain in await made.observe()} == {WEB: True, DB: True}
        assert time.monotonic() - began < 10
        await made.cut_power(WEB)
        assert not await ended(made, WEB)
        async with asyncio.timeout(10):
            while True:
                try:
                    await made.undefine(WEB)
                    break
                except StepFailed:
                    await asyncio.sleep(0.05)

    run_with(host, story)


def test_a_process_that_is_killed_is_no_guest_that_switches_itself_off(host: Host, machines: None) -> None:
    async def story(made: Hypervisor) -> None:
        await made.observe()
        os.kill(process(host, WEB), signal.SIGTERM)
        assert not await ended(made, WEB)
        await made.start(WEB)
        await made.resume(WEB)
        os.kill(process(host, WEB), signal.SIGKILL)
        assert not await ended(made, WEB)

    run_with(host, story)


def test_a_libvirt_that_hangs_is_unavailable(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Hypervisor) -> None:
        monkeypatch.setattr(hypervisor, "_OPEN_TIMEOUT_S", 0.5)
        monkeypatch.setattr(hypervisor, "_CLOSE_TIMEOUT_S", 0.5)
        daemon = int((host.base / "libvirt/run/libvirtd.pid").read_text())
        os.kill(daemon, signal.SIGSTOP)
        try:
            with pytest.raises(LibvirtUnavailable, match=r"can't be reached: libvirt did not answer within 0\.5 s"):
                await made.observe()
            with pytest.raises(LibvirtUnavailable, match="has not answered an earlier call yet"):
                await made.observe()
            began = time.monotonic()
            await made.close()
            assert time.monotonic() - began < 2
        finally:
            os.kill(daemon, signal.SIGCONT)
        await asyncio.sleep(0.5)
        assert await made.observe() == []

    run_with(host, story)


def test_the_agent_ends_though_a_machine_and_libvirt_hang(host: Host, machines: None) -> None:
    with host.agent() as agent:
        slice_ = slice_with_network()
        agent.send(slice_.objects)
        agent.until(id_of("host"), lambda report: len(content(report).status.strangers) == 2)
        daemon = int((host.base / "libvirt/run/libvirtd.pid").read_text())
        os.kill(daemon, signal.SIGSTOP)
        try:
            slice_.vnet()
            agent.send(slice_.objects)  # it looks, and has no answer
            time.sleep(1)
            agent.stop()
        finally:
            os.kill(daemon, signal.SIGCONT)
