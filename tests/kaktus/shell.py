"""The shell on a guest's serial console: there whatever the guest does to its network."""

import os
import select
import time
import tty
from types import TracebackType

LIMIT = 30.0  # seconds for a command, on a busy machine


class Shell:
    """Root's, typed into as a person would."""

    def __init__(self, terminal: str) -> None:
        self._terminal = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._terminal)
        self._count = 0

    def __enter__(self) -> "Shell":
        self.run("true")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._terminal)

    def run(self, command: str) -> str:
        """What it prints, on both its outputs. The shell puts together the marks around that, so no echo has them."""
        self._count += 1
        begin, end = f"<{self._count}<", f">{self._count}>"
        line = f"echo '<'{self._count}'<'; {{ {command}\n}} 2>&1; echo '>'{self._count}'>'\n"
        os.write(self._terminal, line.encode())
        heard, deadline = "", time.monotonic() + LIMIT
        while end not in heard:
            left = deadline - time.monotonic()
            assert left > 0, f"{command}: heard {heard!r}"
            if select.select([self._terminal], [], [], left)[0]:
                heard += os.read(self._terminal, 4096).decode(errors="replace").replace("\r", "")
        return heard.partition(begin + "\n")[2].partition(end)[0].strip()
