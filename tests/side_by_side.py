"""`python -m tests.side_by_side`: all tests, in several runs of pytest at a time, for most wait most of the time.

What a run shows is printed when it ends: whole if something failed. The very last line has the count of all.
"""

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
# How many runs at a time: with more, those that measure time wait for the processor too long.
RUNS_AT_ONCE = 2 * (os.cpu_count() or 1)
COUNT = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")

# pytest's exit code when it was told to run none of the tests there are.
NOTHING_CHOSEN = 5

# The tests that take long, those that take longest first. Who stand on one line share what they start.
LONG = {
    "crash points": ["tests/stack/test_crash_points.py"],
    "demo": ["tests/demo/test_demo.py", "tests/demo/test_interrupted.py"],
    "fresh machine": ["tests/demo/test_fresh_root.py"],
    "upgrade": ["tests/demo/test_upgrade.py"],
    "stack": ["tests/stack/test_silence.py", "tests/stack/test_storm.py", "tests/stack/test_by_hand.py"],
    "guests": ["tests/guest", "tests/cloud_image"],
    "machines": ["tests/kaktus/test_real.py", "tests/kaktus/test_hypervisor.py"],
    "networks": [
        "tests/kaktus/test_metadata.py",
        "tests/kaktus/test_spoofing.py",
        "tests/kaktus/test_metadata_filter.py",
    ],
    "gateway": ["tests/gateway"],
}
# All others, whatever will be added, on two processes.
OTHERS = ["-n", "2", "--dist", "loadfile", "tests", *(f"--ignore={path}" for paths in LONG.values() for path in paths)]


@dataclass
class Run:
    """One run of pytest."""

    name: str
    arguments: Sequence[str]
    started: float = field(default_factory=time.monotonic)
    output: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    process: "subprocess.Popen[bytes]" = field(init=False)
    processor: float = 0.0

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT
        )

    def has_ended(self) -> bool:
        """Whether it has; then `processor` is known, the seconds that it and its own children worked."""
        before = _children_worked()
        if self.process.poll() is None:
            return False
        self.processor = _children_worked() - before
        return True

    def result(self) -> Counter[str]:
        """How many passed, failed and were skipped; prints what there is to see of it. A run that broke off failed."""
        self.output.seek(0)
        shown = self.output.read().decode(errors="replace").rstrip()
        # The last one: what a test left running may have said something after it.
        count = next(filter(None, map(COUNT.fullmatch, reversed(shown.splitlines()))), None)
        numbers = map(int, count.groups()) if count else (0, 1, 0)
        found = Counter(dict(zip(("passed", "failed", "skipped"), numbers, strict=True)))
        if self.process.returncode not in (0, NOTHING_CHOSEN) and not found["failed"]:
            found["failed"] = 1
        took = time.monotonic() - self.started
        summary = count[0] if count else "broke off"
        print(f"{self.name:<14} {took:5.0f} s, {self.processor:4.0f} s of work  {summary}", flush=True)
        if found["failed"]:
            print(shown, flush=True)
        return found


def _children_worked() -> float:
    """Seconds of processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Runs all, with these further arguments for each pytest. Exits 1 when something failed."""
    waiting = [*LONG.items()]
    # First, for it is on the processor all the time.
    waiting.insert(0, ("others", OTHERS))
    runs: list[Run] = []
    count: Counter[str] = Counter()
    try:
        while waiting or runs:
            while waiting and len(runs) < RUNS_AT_ONCE:
                name, arguments = waiting.pop(0)
                runs.append(Run(name, [*arguments, *sys.argv[1:]]))
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for run in [run for run in runs if run.has_ended()]:
                runs.remove(run)
                count += run.result()
    except KeyboardInterrupt:
        print("interrupted; each run tidies up", flush=True)
        count["failed"] += len(waiting) + len(runs)
    finally:
        for run in runs:
            run.process.send_signal(signal.SIGINT)
        for run in runs:
            run.process.wait()
    print(f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped")
    sys.exit(bool(count["failed"]))


if __name__ == "__main__":
    # Where Ctrl-C is ignored, as in a shell's background job, the tests' own programs shall hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
