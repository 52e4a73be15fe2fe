"""Waits for dead guests at once: libvirt waits until somebody has, and a container's first process takes its time."""

import ctypes
import os
import threading
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_INTERVAL_S = 0.03


class Reaper:
    """Guests that libvirt has let go of are this process's children as long as it is open."""

    def __init__(self, pid_files: Path) -> None:
        self._pid_files = pid_files
        self._guests: set[int] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._reap, name="reaper")
        _adopt(True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        _adopt(False)

    def _reap(self) -> None:
        while not self._closing.wait(_INTERVAL_S):
            for path in self._pid_files.glob("kowa-*.pid"):
                try:
                    self._guests.add(int(path.read_text()))
                except (OSError, ValueError):
                    continue  # it goes, or is being written
            for pid in list(self._guests):
                try:
                    dead = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
                except ChildProcessError:
                    dead = not Path(f"/proc/{pid}").exists()
                if dead:
                    self._guests.discard(pid)


def _adopt(whether: bool) -> None:
    done = ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(whether), 0, 0, 0)
    assert done == 0, os.strerror(ctypes.get_errno())
