"""`python -m deploy.demo up | status | logs | down | leftovers`. Run as root: `make` sees to it."""

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

from deploy.demo import leftovers, site
from deploy.demo.house import House
from deploy.guest.debs import AptError
from kowa.errors import KowaError

LINES = 30
# With less than this on the disk, in MiB, what failed has most likely failed for it.
LITTLE = 250
INTERRUPTED = 128 + signal.SIGINT
# What may go wrong on a machine: a line says it. Anything else is a mistake of ours, and shows where.
FAULTS = (OSError, subprocess.SubprocessError, sqlite3.Error, AptError, KowaError)


def main() -> None:
    """Does what the command says, and says in one line what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("command", choices=["up", "status", "logs", "down", "leftovers"])
    command = parser.parse_args().command
    target = "demo" if command == "up" else command
    house = House()
    if os.geteuid() != 0:
        sys.exit(f"demo: needs root for bridges and libvirt: run `sudo make {target}`")
    try:
        _take_interrupts()
        {"up": up, "status": status, "logs": logs, "down": down, "leftovers": compare}[command](house)
    except KeyboardInterrupt:
        print(f"\ndemo: interrupted; `make {target}` goes on from here", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except FAULTS as error:
        sys.exit(f"demo: {error}{_advice(house, target)}")
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.exit(f"{error.code}{_advice(house, target)}")
        raise


def up(house: House) -> None:
    """Brings it up."""
    from deploy.demo.up import up as bring_up

    with _alone(house):
        machines = site.guests(house).pids()
        try:
            bring_up(house)
        except (*FAULTS, SystemExit, KeyboardInterrupt):
            # Who started while the disk was full may never get over it: libvirtd takes QEMU, whose abilities it could
            # not write down, for absent; a new machine has spoken to a console that kept nothing.
            if _free(house) < LITTLE:
                for daemon in site.all_daemons(house):
                    if daemon.name != "guests" or not machines:
                        daemon.stop()
            raise


def status(house: House) -> None:
    """What runs, and what the API says."""
    running = {daemon.name: daemon.pids() for daemon in site.all_daemons(house)}
    for name, pids in running.items():
        print(f"{name:<10} {'pid ' + ', '.join(map(str, pids)) if pids else 'not running'}")
    if running["kahuna"] and running["gateway"]:
        from deploy.demo.up import connect, report

        report(house, connect(house))


def logs(house: House) -> None:
    """The end of each log."""
    for log in sorted(house.logs.glob("*.log")):
        print(f"== {log}")
        with log.open(errors="replace") as lines:
            sys.stdout.writelines(deque(lines, LINES))


def down(house: House) -> None:
    """Ends everything and removes what is outside the checkout. The data below .demo stays."""
    if not house.root.exists():
        return
    with _alone(house):
        for daemon in site.all_daemons(house):
            if daemon.stop():
                print(f"{daemon.name} stopped")
            if daemon.name == "guests":
                site.delete_traces(house)
        subprocess.run(["sync", "-f", str(house.root)], check=False)


def compare(house: House) -> None:
    """Exits 1 when something is left."""
    left = leftovers.compare(house)
    if left:
        print("\n".join(left))
        sys.exit(1)
    print("nothing is left")


@contextlib.contextmanager
def _alone(house: House) -> Iterator[None]:
    """Raises SystemExit when another command starts or stops daemons of this checkout."""
    folder = os.open(house.checkout, os.O_RDONLY | os.O_DIRECTORY)
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


def _take_interrupts() -> None:
    """From here on Ctrl-C is heard: the first one ends the command, and what it leaves is tidied up in peace.

    `make` holds signals back until then, for an interpreter that starts has but a traceback for them.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    # A shell ignores it for a script's background job: Ctrl-C is meant for what stands in front.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _free(house: House) -> int:
    """MiB on the disk that the demo writes to."""
    return shutil.disk_usage(house.root if house.root.exists() else house.checkout).free >> 20


def _advice(house: House, target: str) -> str:
    free = _free(house)
    if free >= LITTLE:
        return ""
    return f"; only {free} MiB are free on the disk of {house.root}: make room and run `make {target}` again"


if __name__ == "__main__":
    main()
