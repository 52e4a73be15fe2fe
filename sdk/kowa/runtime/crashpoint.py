"""Named places where a test kills the process, to prove that the next one recovers from there."""

import os
import signal
from pathlib import Path

_TRACE = os.environ.get("KOWA_CRASH_TRACE", "")
_PLAN = os.environ.get("KOWA_CRASH_PLAN", "")


def crash_point(name: str) -> None:
    """Marks a place between two steps with a name such as `kaktus.domain.defined`.

    KOWA_CRASH_TRACE is a file to which the name is appended, so that tests know which places were passed.
    KOWA_CRASH_PLAN is a file of names, read at each call: at any of them the process removes that name, once, and then
    kills itself, as kill -9 would, so that the next process survives there. Their order means nothing: steps of several
    objects run at the same time.
    """
    if _TRACE:
        with open(_TRACE, "a", encoding="ascii") as trace:  # noqa: PTH123 - one write, no path arithmetic
            trace.write(name + "\n")
    if _PLAN:
        planned = Path(_PLAN).read_text("ascii").split()
        if name in planned:
            planned.remove(name)
            Path(_PLAN).write_text("\n".join(planned), "ascii")
            os.kill(os.getpid(), signal.SIGKILL)
