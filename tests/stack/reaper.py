"""Reaps dead guests at once: libvirt waits until they are reaped, and a container's first process may be slow to."""

import ctypes
import os
import threading
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_INTERVAL_S = 0.03


class Reaper:
    """Adopts and reaps the guests of a libvirtd until it is closed."""

    def __init__(self, pid_files: Path) -> None:
        self._pid_files = pid_files
        self._guests: set[int] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._reap, name="reaper")
        _adopt_orphans(True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        _adopt_orphans(False)

    def _reap(self) -> None:
        while not self._closing.wait(_INTERVAL_S):
            for path in self._pid_files.glob("kowa-*.pid"):
                try:
                    self._guests.add(int(path.read_text()))
                except (OSError, ValueError):
                    continue  # just removed, or being written
            for pid in list(self._guests):
                try:
                    dead = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
                except ChildProcessError:
                    dead = not Path(f"/proc/{pid}").exists()
                if dead:
                    self._guests.discard(pid)


def _adopt_orphans(enable: bool) -> None:
    """Makes this process the parent of orphaned descendants, or no longer."""
    result = ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(enable), 0, 0, 0)
    assert result == 0, os.strerror(ctypes.get_errno())
