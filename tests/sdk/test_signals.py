"""Signals that end our programs: SIGTERM always; Ctrl-C except in a script's background job."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio
from kowa.runtime.program import on_stop_signal

async def main():
    end = asyncio.Event()
    on_stop_signal(end.set)
    print("ready", flush=True)
    await asyncio.to_thread(input)  # the test checks by a line that the program still runs
    print("there", flush=True)
    await end.wait()

asyncio.run(main())
"""
BACKGROUND = ("env", "--ignore-signal=INT")
FOREGROUND = ("env", "--default-signal=INT")


@pytest.mark.parametrize(
    ("launcher", "sent", "survives"),
    [
        (FOREGROUND, signal.SIGINT, False),
        (FOREGROUND, signal.SIGTERM, False),
        (BACKGROUND, signal.SIGTERM, False),
        (BACKGROUND, signal.SIGINT, True),
    ],
)
def test_a_program_ends_on_sigterm_and_on_ctrl_c_in_the_foreground(
    launcher: tuple[str, ...], sent: signal.Signals, *, survives: bool
) -> None:
    command = [*launcher, sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(sent)
        if survives:
            assert running.stdin is not None
            running.stdin.write("\n")
            running.stdin.flush()
            assert running.stdout.readline() == "there\n"
            running.terminate()
        running.communicate("\n", timeout=20)
        assert running.returncode == 0
