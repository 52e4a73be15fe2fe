"""The shell on a guest's serial console, which works without the guest's network."""

import os
import select
import time
import tty
from types import TracebackType

COMMAND_TIMEOUT_S = 30.0  # on a busy machine


class Shell:
    """A root shell, typed into as a person would."""

    def __init__(self, terminal: str) -> None:
        self._terminal = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._terminal)
        self._count = 0

    def __enter__(self) -> "Shell":
        self.run("true")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._terminal)

    def run(self, command: str) -> str:
        """Returns what a command prints on both outputs.

        The shell puts the markers around that together, so that the echo of the typed line has none.
        """
        self._count += 1
        begin, end = f"<{self._count}<", f">{self._count}>"
        line = f"echo '<'{self._count}'<'; {{ {command}\n}} 2>&1; echo '>'{self._count}'>'\n"
        os.write(self._terminal, line.encode())
        printed, deadline = "", time.monotonic() + COMMAND_TIMEOUT_S
        while end not in printed:
            left = deadline - time.monotonic()
            assert left > 0, f"{command}: printed {printed!r}"
            if select.select([self._terminal], [], [], left)[0]:
                printed += os.read(self._terminal, 4096).decode(errors="replace").replace("\r", "")
        return printed.partition(begin + "\n")[2].partition(end)[0].strip()
