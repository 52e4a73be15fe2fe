"""One program of the stack, started again whenever it dies, as an operator's service manager does."""

import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy import programs
from tests.kaktus.hosts import REPOSITORY

STOP_TIMEOUT_S = 60  # after SIGTERM


class Program:
    """A process, its log, and the crash points it passes."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.deaths = 0  # by SIGKILL, from the test or at a crash point
        self.faults: list[str] = []  # exits that the test did not cause
        self._command = command
        self._log = folder / f"{name}.log"
        self._trace, self._plan = folder / f"{name}.trace", folder / f"{name}.plan"
        for path in (self._trace, self._plan):
            path.touch()
        self._is_to_run = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor = threading.Thread(target=self._supervise, name=name)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._is_to_run.set()
        self._process = self._run()
        self._supervisor.start()

    def stop(self) -> None:
        """Stops it without a restart."""
        if self._is_to_run.is_set():
            self._is_to_run.clear()
            assert self._process is not None
            if not programs.end(self._process, STOP_TIMEOUT_S):
                self.faults.append(f"{self.name} did not end within {STOP_TIMEOUT_S} s of SIGTERM")
            self._supervisor.join()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kills it; it is restarted at once."""
        self.send(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freezes it by SIGSTOP, with all its connections open."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def arm(self, *points: str) -> None:
        """From now on it dies at each of these crash points, once for each time that it is named, in any order."""
        draft = self._plan.with_suffix(".new")
        draft.write_text("\n".join(points), "ascii")
        draft.replace(self._plan)

    def armed(self) -> list[str]:
        """The crash points that it is still to die at."""
        return self._plan.read_text("ascii").split()

    def forget_trace(self) -> None:
        self._trace.write_text("")

    def passed(self) -> list[str]:
        """The crash points it has passed, in the order of their first time."""
        return list(dict.fromkeys(self._trace.read_text("ascii").split()))

    def _run(self) -> subprocess.Popen[bytes]:
        points = {"KOWA_CRASH_TRACE": str(self._trace), "KOWA_CRASH_PLAN": str(self._plan)}
        return programs.start(self._command, self._log, cwd=REPOSITORY, environment=points)

    def _supervise(self) -> None:
        assert self._process is not None
        while True:
            code = self._process.wait()
            if not self._is_to_run.is_set():
                return
            if code != -signal.SIGKILL:
                self.faults.append(f"{self.name} ended by itself: {code}; see {self._log}")
                return
            self.deaths += 1
            self._process = self._run()
