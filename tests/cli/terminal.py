"""A terminal with somebody at it."""

import contextlib
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LOCAL_FLAGS = 3  # in what tcgetattr returns


@dataclass
class Terminal:
    """A terminal, and a shell's command that runs in it."""

    master: int
    slave: int
    process: subprocess.Popen[bytes]
    printed: bytes = b""

    @property
    def state(self) -> list[Any]:
        """How it takes and shows what is typed."""
        return termios.tcgetattr(self.slave)

    @property
    def raw(self) -> bool:
        """Whether each key goes through as it is."""
        return not self.state[LOCAL_FLAGS] & termios.ICANON

    def read_until(self, text: bytes) -> None:
        """Waits until something is printed."""
        while text not in self.printed:
            assert select.select([self.master], [], [], 20)[0], self.printed
            self.printed += os.read(self.master, 4096)

    def wait(self) -> int:
        """The exit status, negative when a signal ended it. What is still printed is read."""
        while True:
            status = self.process.poll()
            while select.select([self.master], [], [], 0.01)[0]:
                self.printed += os.read(self.master, 4096)
            if status is not None:
                return status


@contextlib.contextmanager
def in_terminal(*words: str, script: str = "") -> Iterator[Terminal]:
    """kowactl in a terminal of its own, or a shell's script, in which $KOWACTL stands for it."""
    master, slave = pty.openpty()
    kowactl = [sys.executable, "-m", "kowactl.main", "--insecure"]
    command = ["sh", "-c", script] if script else [*kowactl, *words]
    session = ["env", "--default-signal", "setsid", "--ctty", *command]
    environment = os.environ | {"KOWACTL": " ".join(kowactl)}
    with subprocess.Popen(session, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        try:
            yield Terminal(master, slave, process)
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
