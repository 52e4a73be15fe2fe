"""kowactl in a pseudo-terminal."""

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

LOCAL_FLAGS = 3  # index into tcgetattr's result


@dataclass
class Terminal:
    """A pseudo-terminal, and the command that runs in it."""

    master: int
    slave: int
    process: subprocess.Popen[bytes]
    printed: bytes = b""

    @property
    def state(self) -> list[Any]:
        """The terminal's attributes."""
        return termios.tcgetattr(self.slave)

    @property
    def raw(self) -> bool:
        """Whether the terminal is in raw mode."""
        return not self.state[LOCAL_FLAGS] & termios.ICANON

    def read_until(self, text: bytes) -> None:
        """Waits until the text is printed."""
        while text not in self.printed:
            assert select.select([self.master], [], [], 20)[0], self.printed
            self.printed += os.read(self.master, 4096)

    def wait(self) -> int:
        """Reads the output until the command ends; returns its exit status, negative when a signal ended it."""
        while True:
            status = self.process.poll()
            while select.select([self.master], [], [], 0.01)[0]:
                self.printed += os.read(self.master, 4096)
            if status is not None:
                return status


@contextlib.contextmanager
def in_terminal(*arguments: str, script: str = "") -> Iterator[Terminal]:
    """Runs kowactl in a new terminal, or a shell script in which $KOWACTL is the kowactl command."""
    master, slave = pty.openpty()
    kowactl = [sys.executable, "-m", "kowactl.main", "--insecure"]
    command = ["sh", "-c", script] if script else [*kowactl, *arguments]
    session = ["env", "--default-signal", "setsid", "--ctty", *command]
    environment = os.environ | {"KOWACTL": " ".join(kowactl)}
    with subprocess.Popen(session, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        try:
            yield Terminal(master, slave, process)
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
