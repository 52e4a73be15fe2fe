"""Calls into libvirt: a hung call delays neither the agent nor its exit."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from agent_kaktus.compute import hypervisor
from agent_kaktus.compute.hypervisor import Hypervisor
from agent_kaktus.errors import LibvirtUnavailable
from kowa.runtime.calls import Calls
from kowa.runtime.errors import StepFailed
from kowa.runtime.tasks import in_thread

from .slices import id_of

REPOSITORY = Path(__file__).parents[2]


def test_a_call_returns_its_result_or_raises_its_error() -> None:
    async def scenario() -> None:
        calls = Calls("libvirt")
        assert await calls.run("web", in_thread(lambda: 7), 5) == 7
        with pytest.raises(ZeroDivisionError):
            await calls.run("web", in_thread(lambda: 1 // 0), 5)

    asyncio.run(scenario())


class Connection:
    """A connection to a libvirt without domains."""

    def __getattr__(self, name: str) -> Callable[..., list[object]]:
        return lambda *_: []


def test_connections_to_an_unavailable_libvirt_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, opened = 100.0, 0
    is_unavailable, open_libvirt = True, libvirt.open

    def count_open(uri: str) -> object:
        nonlocal opened
        opened += 1
        return open_libvirt(uri) if is_unavailable else Connection()

    async def scenario() -> None:
        nonlocal now, opened, is_unavailable
        nowhere = Hypervisor("qemu+unix:///system?socket=/nowhere", lambda: None, lambda: now)
        calls = (nowhere.observe, nowhere.facts, lambda: nowhere.reset("web"))
        for _ in range(3):  # it is available in between
            for _ in range(100):
                for call in calls:
                    with pytest.raises(LibvirtUnavailable, match=r"can't be reached: .*/nowhere"):
                        await call()
                assert await nowhere.serial("web") == ""
                now += 0.1
            assert 3 <= opened <= 5, "too many connections: systemd would not start libvirtd any more"
            now, is_unavailable = now + 10, False
            assert await nowhere.observe() == []
            is_unavailable, opened = True, 0
            nowhere._drop(nowhere._connection)

    monkeypatch.setattr(libvirt, "open", count_open)
    asyncio.run(scenario())


def test_a_hung_call_times_out_and_is_not_repeated() -> None:
    released = threading.Event()

    async def scenario() -> None:
        calls = Calls("libvirt")
        with pytest.raises(StepFailed, match=r"libvirt did not answer within 0\.05 s"):
            await calls.run("web", in_thread(released.wait), 0.05)
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(StepFailed, match="has not answered an earlier call yet"):
                await calls.run("web", in_thread(released.wait), 0.05)
        assert threading.active_count() == threads
        assert await calls.run("db", in_thread(lambda: 7), 5) == 7
        released.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await calls.run("web", in_thread(lambda: 8), 5) == 8
                    break
                except StepFailed:
                    await asyncio.sleep(0.01)

    try:
        asyncio.run(scenario())
    finally:
        released.set()


class Handle:
    """A domain of libvirt that is off, and about which it may not answer."""

    def __init__(self, name: str, answers: threading.Event) -> None:
        self._name, self._answers = name, answers

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's
        return id_of(self._name)

    def name(self) -> str:
        return self._name

    def state(self) -> tuple[int, int]:
        self._answers.wait()
        return libvirt.VIR_DOMAIN_SHUTOFF, 0

    def XMLDesc(self, _: int) -> str:  # noqa: N802 - libvirt's
        return f"<domain><devices><disk><source file='/pools/{self._name}'/></disk></devices></domain>"

    def isPersistent(self) -> bool:  # noqa: N802 - libvirt's
        return True


class ConnectionWithDomains(Connection):
    """A connection to a libvirt with domains."""

    def __init__(self, *handles: Handle) -> None:
        self.handles = handles

    def listAllDomains(self, _: int) -> list[Handle]:  # noqa: N802 - libvirt's
        return list(self.handles)


def test_a_domain_at_which_libvirt_hangs_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    always, answers, unheard = threading.Event(), threading.Event(), threading.Event()
    for event in (always, answers):
        event.set()
    handles = Handle("db", always), Handle("web", answers), Handle("batch", unheard), Handle("cache", always)
    connections: list[Connection] = []

    def connect(_: str) -> Connection:
        connections.append(ConnectionWithDomains(*handles))
        return connections[-1]

    async def scenario() -> None:
        libvirtd = Hypervisor("test", lambda: None)
        found = {domain.name: domain for domain in await libvirtd.observe()}
        assert {name for name, domain in found.items() if domain.unseen} == {"batch"}
        assert found["batch"].is_unknown
        answers.clear()
        found = {domain.name: domain for domain in await libvirtd.observe()}
        assert {name for name, domain in found.items() if domain.unseen} == {"web", "batch"}
        assert found["web"].disks == {"/pools/web"}
        opened = len(connections)
        assert opened == 3, "a call that hangs slows down the others on its connection"
        async with asyncio.timeout(hypervisor._OBSERVE_TIMEOUT_S / 2):
            await libvirtd.observe()
        assert len(connections) == opened, "it waits again for the same domains"
        for event in (answers, unheard):
            event.set()
        async with asyncio.timeout(5):
            while True:
                if not any(domain.unseen for domain in await libvirtd.observe()):
                    break
                await asyncio.sleep(0.01)

    monkeypatch.setattr(hypervisor, "_open", connect)
    monkeypatch.setattr(hypervisor, "_OBSERVE_TIMEOUT_S", 0.3)
    try:
        asyncio.run(asyncio.wait_for(scenario(), 20))
    finally:
        for event in (answers, unheard):
            event.set()


def test_a_program_exits_although_a_call_hangs() -> None:
    program = """
import asyncio, contextlib, threading
from kowa.runtime.calls import Calls
from kowa.runtime.errors import StepFailed
from kowa.runtime.tasks import in_thread
async def scenario():
    with contextlib.suppress(StepFailed):
        await Calls("libvirt").run("web", in_thread(threading.Event().wait), 0.05)
asyncio.run(scenario())
"""
    environment = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/sdk"}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=20, check=True)
