"""`python -m deploy.demo up | status | logs | down | leftovers`. Needs root, which `make` provides."""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from types import FrameType

from deploy.demo import leftovers, services
from deploy.demo.layout import Layout
from deploy.guest.debs import AptError
from kowa.errors import KowaError

LOG_LINES = 30
# With less free space than this, a full disk is most likely what a failure comes from.
LOW_DISK_MIB = 250
INTERRUPTED = 128 + signal.SIGINT
# Errors of the machine, printed in a line. Any other is a bug of ours and has a traceback.
FAULTS = (OSError, subprocess.SubprocessError, sqlite3.Error, AptError, KowaError)


def main() -> None:
    """Runs the command, and prints errors of the machine in one line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("command", choices=["up", "status", "logs", "down", "leftovers"])
    command = parser.parse_args().command
    target = "demo" if command == "up" else command
    layout = Layout()
    if os.geteuid() != 0:
        sys.exit(f"demo: needs root for bridges and libvirt: run `sudo make {target}`")
    try:
        _handle_interrupts()
        {"up": up, "status": status, "logs": logs, "down": down, "leftovers": compare}[command](layout)
    except KeyboardInterrupt:
        print(f"\ndemo: interrupted; `make {target}` goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except FAULTS as error:
        sys.exit(f"demo: {error}{_advice(layout, target)}")
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.exit(f"{error.code}{_advice(layout, target)}")
        raise


def up(layout: Layout) -> None:
    """Starts the demo. When that fails on a full disk, stops what it started."""
    from deploy.demo.up import up as bring_up

    with _exclusively(layout):
        had_guests = bool(services.guests(layout).pids())
        try:
            bring_up(layout)
        except (*FAULTS, SystemExit, KeyboardInterrupt):
            # Daemons that started while the disk was full may stay broken: libvirtd could not cache QEMU's capabilities
            # and takes it for absent; a new instance's console output is lost.
            if _free(layout) < LOW_DISK_MIB:
                for daemon in services.all_daemons(layout):
                    if daemon.name != "guests" or not had_guests:
                        daemon.stop()
            raise


def status(layout: Layout) -> None:
    """Prints which daemons run, and the instances that the API lists."""
    running = {daemon.name: daemon.pids() for daemon in services.all_daemons(layout)}
    for name, pids in running.items():
        print(f"{name:<10} {'pid ' + ', '.join(map(str, pids)) if pids else 'not running'}")
    if running["kahuna"] and running["gateway"]:
        from deploy.demo.up import connect, report

        report(layout, connect(layout))


def logs(layout: Layout) -> None:
    """Prints the end of each log."""
    for log in sorted(layout.logs.glob("*.log")):
        print(f"== {log}")
        with log.open(errors="replace") as lines:
            sys.stdout.writelines(deque(lines, LOG_LINES))


def down(layout: Layout) -> None:
    """Stops all daemons and deletes their objects outside the checkout. The data below .demo stays."""
    if not layout.root.exists():
        return
    with _exclusively(layout):
        for daemon in services.all_daemons(layout):
            if daemon.stop():
                print(f"{daemon.name} stopped")
            if daemon.name == "guests":
                services.delete_host_objects(layout)
        subprocess.run(["sync", "-f", str(layout.root)], check=False)


def compare(layout: Layout) -> None:
    """Prints what is left on the machine, and exits with 1 when there is something."""
    left = leftovers.compare(layout)
    if left:
        print("\n".join(left))
        sys.exit(1)
    print("nothing is left")


@contextlib.contextmanager
def _exclusively(layout: Layout) -> Iterator[None]:
    """Raises SystemExit when another command starts or stops daemons of this checkout."""
    folder = os.open(layout.checkout, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                "demo: another `make demo` or `make down` is at work in this checkout; wait for it"
            ) from None
        yield
    finally:
        os.close(folder)


def _handle_interrupts() -> None:
    """The first Ctrl-C ends the command; further ones do not interrupt its clean-up.

    `make` blocks the signal until then, since a starting interpreter would answer it with a traceback.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # An interrupted constructor leaves a half-made object, whose clean-up may fail and would print a traceback.
        sys.unraisablehook = lambda _: None
        raise KeyboardInterrupt

    # A shell makes a script's background jobs ignore it, since Ctrl-C is meant for the foreground job.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _free(layout: Layout) -> int:
    """Free space in MiB on the disk that the demo writes to."""
    return shutil.disk_usage(layout.root if layout.root.exists() else layout.checkout).free >> 20


def _advice(layout: Layout, target: str) -> str:
    free = _free(layout)
    if free >= LOW_DISK_MIB:
        return ""
    return f"; only {free} MiB are free on the disk of {layout.root}: make room and run `make {target}` again"


if __name__ == "__main__":
    main()
