"""What ends a program of ours: SIGTERM always; Ctrl-C unless it is a script's background job."""

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
    await asyncio.to_thread(input)  # a line says: are you there?
    print("there", flush=True)
    await end.wait()

asyncio.run(main())
"""
BACKGROUND = ("env", "--ignore-signal=INT")
FOREGROUND = ("env", "--default-signal=INT")


@pytest.mark.parametrize(
    ("started", "sent", "stays"),
    [
        (FOREGROUND, signal.SIGINT, False),
        (FOREGROUND, signal.SIGTERM, False),
        (BACKGROUND, signal.SIGTERM, False),
        (BACKGROUND, signal.SIGINT, True),
    ],
)
def test_what_ends_it(started: tuple[str, ...], sent: signal.Signals, *, stays: bool) -> None:
    command = [*started, sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(sent)
        if stays:
            assert running.stdin is not None
            running.stdin.write("\n")
            running.stdin.flush()
            assert running.stdout.readline() == "there\n"
            running.terminate()
        running.communicate("\n", timeout=20)
        assert running.returncode == 0
