"""One program of the stack, started again whenever it dies, as an operator's service manager does."""

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy import programs
from tests.kaktus.hosts import REPOSITORY

LIMIT_S = 60  # to end when told to


class Program:
    """A process, its log, and the points it passes."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.deaths = 0  # by kill -9, ours or at a crash point
        self.faults: list[str] = []  # ends of its own
        self._command = command
        self._log = folder / f"{name}.log"
        self._trace, self._plan = folder / f"{name}.trace", folder / f"{name}.plan"
        for path in (self._trace, self._plan):
            path.touch()
        self._wanted = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name=name)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._wanted.set()
        self._process = self._run()
        self._keeper.start()

    def stop(self) -> None:
        """For good."""
        if self._wanted.is_set():
            self._wanted.clear()
            assert self._process is not None
            if not programs.end(self._process, LIMIT_S):
                self.faults.append(f"{self.name} did not end within {LIMIT_S} s of SIGTERM")
            self._keeper.join()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """It is started again at once."""
        self.send(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It holds still, with all its connections open."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def arm(self, *points: str) -> None:
        """From now on it dies at the first of these; the one started after it at the next, and so on."""
        draft = self._plan.with_suffix(".new")
        draft.write_text("\n".join(points), "ascii")
        draft.replace(self._plan)

    def armed(self) -> list[str]:
        """The points that it still is to die at."""
        return self._plan.read_text("ascii").split()

    def forget_trace(self) -> None:
        self._trace.write_text("")

    def passed(self) -> list[str]:
        """The points it has passed, in the order of the first time."""
        return list(dict.fromkeys(self._trace.read_text("ascii").split()))

    def _run(self) -> subprocess.Popen[bytes]:
        points = {"KOWA_CRASH_TRACE": str(self._trace), "KOWA_CRASH_PLAN": str(self._plan)}
        return programs.start(self._command, self._log, cwd=REPOSITORY, environment=points)

    def _keep(self) -> None:
        assert self._process is not None
        while True:
            code = self._process.wait()
            if not self._wanted.is_set():
                return
            if code != -signal.SIGKILL:
                self.faults.append(f"{self.name} ended by itself: {code}; see {self._log}")
                return
            self.deaths += 1
            self._process = self._run()
