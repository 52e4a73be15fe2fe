"""Named places where a test kills the process, to prove that the loop starts again from there."""

import os
import signal
from pathlib import Path

_ARMED = os.environ.get("KOWA_CRASH_POINT", "")
_PLAN = os.environ.get("KOWA_CRASH_PLAN", "")
_TRACE = os.environ.get("KOWA_CRASH_TRACE", "")


def reach(name: str) -> None:
    """Marks a place between two steps, e.g. `kaktus.domain.defined`.

    With KOWA_CRASH_POINT set to the name the process kills itself here, as kill -9 would. KOWA_CRASH_PLAN is a file
    of names that may change meanwhile: the process kills itself at the first of them and takes it off, so that the one
    started next lives past it. With KOWA_CRASH_TRACE set to a file, the name is appended to it first, so that a sweep
    can tell which points were reached.
    """
    if _TRACE:
        with open(_TRACE, "a", encoding="ascii") as trace:  # noqa: PTH123 - one write, no path arithmetic
            trace.write(name + "\n")
    if name == _ARMED or (_PLAN and _is_next(name)):
        os.kill(os.getpid(), signal.SIGKILL)


def _is_next(name: str) -> bool:
    plan = Path(_PLAN)
    first, *rest = plan.read_text("ascii").split() or [""]
    if name == first:
        plan.write_text("\n".join(rest), "ascii")
    return name == first
