"""Calls into libvirt: one that does not come back delays neither the agent nor its end."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent_kaktus.compute.hypervisor import Calls
from agent_kaktus.errors import StepFailed

REPOSITORY = Path(__file__).parents[2]


def test_a_call_has_its_answer_or_its_error() -> None:
    async def story() -> None:
        calls = Calls()
        assert await calls.run("web", lambda: 7, 5) == 7
        with pytest.raises(ZeroDivisionError):
            await calls.run("web", lambda: 1 // 0, 5)

    asyncio.run(story())


def test_what_hangs_is_not_waited_for_and_not_asked_twice() -> None:
    back = threading.Event()

    async def story() -> None:
        calls = Calls()
        with pytest.raises(StepFailed, match=r"libvirt did not answer within 0\.05 s"):
            await calls.run("web", back.wait, 0.05)
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(StepFailed, match="has not answered an earlier call yet"):
                await calls.run("web", back.wait, 0.05)
        assert threading.active_count() == threads
        assert await calls.run("db", lambda: 7, 5) == 7
        back.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await calls.run("web", lambda: 8, 5) == 8
                    break
                except StepFailed:
                    await asyncio.sleep(0.01)

    try:
        asyncio.run(story())
    finally:
        back.set()


def test_a_program_ends_though_a_call_hangs() -> None:
    program = """
import asyncio, contextlib, threading
from agent_kaktus.compute.hypervisor import Calls
from agent_kaktus.errors import StepFailed
async def story():
    with contextlib.suppress(StepFailed):
        await Calls().run("web", threading.Event().wait, 0.05)
asyncio.run(story())
"""
    environment = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/sdk"}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=20, check=True)
