"""Named places where a test kills the process, to prove that the loop starts again from there."""

import os
import signal

_ARMED = os.environ.get("KOWA_CRASH_POINT", "")
_TRACE = os.environ.get("KOWA_CRASH_TRACE", "")


def reach(name: str) -> None:
    """Marks a place between two steps, e.g. `kaktus.domain.defined`.

    With KOWA_CRASH_POINT set to the name the process kills itself here, as kill -9 would; with KOWA_CRASH_TRACE set to
    a file, the name is appended to it first, so that a sweep can tell which points were reached.
    """
    if _TRACE:
        with open(_TRACE, "a", encoding="ascii") as trace:  # noqa: PTH123 - one write, no path arithmetic
            trace.write(name + "\n")
    if name == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
