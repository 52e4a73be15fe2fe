"""`python -m tests.side_by_side`: all tests, in several pytest runs at a time, since most tests mostly wait.

At its end a run prints one line, and its whole output if something failed. The very last line has the sums.
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
# The number of runs at a time: with more, tests that measure time wait for the processor too long.
RUNS_AT_ONCE = 2 * (os.cpu_count() or 1)
COUNT = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")

# pytest's exit code when its arguments select no test.
NO_TESTS_SELECTED = 5

# The slow test files by run, the slowest run first. Files of one run share their fixtures.
LONG = {
    "crash points": ["tests/stack/test_crash_points.py"],
    "demo": ["tests/demo/test_demo.py", "tests/demo/test_interrupted.py"],
    "fresh machine": ["tests/demo/test_fresh_root.py"],
    "upgrade": ["tests/demo/test_upgrade.py"],
    "stack": ["tests/stack/test_silence.py", "tests/stack/test_storm.py", "tests/stack/test_by_hand.py"],
    "guests": ["tests/guest", "tests/cloud_image"],
    "instances": ["tests/kaktus/test_real.py", "tests/kaktus/test_hypervisor.py"],
    "networks": [
        "tests/kaktus/test_metadata.py",
        "tests/kaktus/test_spoofing.py",
        "tests/kaktus/test_metadata_filter.py",
    ],
    "stopped QEMU": ["tests/kaktus/test_stopped_qemu.py"],
    "gateway": ["tests/gateway"],
}
# All other tests, also future ones, on two processes.
OTHERS = ["-n", "2", "--dist", "loadfile", "tests", *(f"--ignore={path}" for paths in LONG.values() for path in paths)]


@dataclass
class Run:
    """One run of pytest."""

    name: str
    arguments: Sequence[str]
    started: float = field(default_factory=time.monotonic)
    output: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    process: "subprocess.Popen[bytes]" = field(init=False)
    processor_s: float = 0.0

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT
        )

    def has_ended(self) -> bool:
        """Whether the run has ended; then sets `processor_s`, the processor time of it and its children."""
        used_before = _children_processor_s()
        if self.process.poll() is None:
            return False
        self.processor_s = _children_processor_s() - used_before
        return True

    def result(self) -> Counter[str]:
        """The counts of passed, failed and skipped tests; prints the result. A run that crashed counts as failed."""
        self.output.seek(0)
        printed = self.output.read().decode(errors="replace").rstrip()
        # The last match: a program that a test left running may have printed after it.
        count = next(filter(None, map(COUNT.fullmatch, reversed(printed.splitlines()))), None)
        numbers = map(int, count.groups()) if count else (0, 1, 0)
        counts = Counter(dict(zip(("passed", "failed", "skipped"), numbers, strict=True)))
        if self.process.returncode not in (0, NO_TESTS_SELECTED) and not counts["failed"]:
            counts["failed"] = 1
        elapsed = time.monotonic() - self.started
        summary = count[0] if count else "crashed"
        print(f"{self.name:<14} {elapsed:5.0f} s, {self.processor_s:4.0f} s of work  {summary}", flush=True)
        if counts["failed"]:
            print(printed, flush=True)
        return counts


def _children_processor_s() -> float:
    """Seconds of processor time of all ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Runs all tests; the command line's arguments go to each pytest. Exits 1 when something failed."""
    waiting = [*LONG.items()]
    # First, since it uses the processor all the time.
    waiting.insert(0, ("others", OTHERS))
    runs: list[Run] = []
    total: Counter[str] = Counter()
    try:
        while waiting or runs:
            while waiting and len(runs) < RUNS_AT_ONCE:
                name, arguments = waiting.pop(0)
                runs.append(Run(name, [*arguments, *sys.argv[1:]]))
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for run in [run for run in runs if run.has_ended()]:
                runs.remove(run)
                total += run.result()
    except KeyboardInterrupt:
        print("interrupted; each run cleans up", flush=True)
        total["failed"] += len(waiting) + len(runs)
    finally:
        for run in runs:
            run.process.send_signal(signal.SIGINT)
        for run in runs:
            run.process.wait()
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    sys.exit(bool(total["failed"]))


if __name__ == "__main__":
    # A shell's background job ignores Ctrl-C; the programs that tests start must get it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
