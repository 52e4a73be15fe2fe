"""The demo's processes: found by what they run, not by what a file says, so that kill -9 confuses nobody."""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.house import House

USER = "kowabunga"


@dataclass(frozen=True, slots=True)
class Daemon:
    """One process of the demo. `owns` says of a process whether it is this one."""

    name: str
    command: Sequence[str]
    owns: Callable[[Path], bool]
    environment: tuple[tuple[str, str], ...] = ()

    def pids(self) -> list[int]:
        """The processes that run it."""
        return [int(process.name) for process in processes() if self.owns(process)]

    def start(self, house: House) -> bool:
        """Starts it in the background unless it runs. Says whether it did."""
        if self.pids():
            return False
        house.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (house.logs / f"{self.name}.log").open("ab") as log:
            subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=house.checkout,
                env={**os.environ, **dict(self.environment)},
            )
        return True

    def stop(self, limit: float = 15) -> bool:
        """Ends it, by force after `limit` seconds. Says whether it ran."""
        pids = self.pids()
        kill(pids, signal.SIGTERM)
        if not gone(self.pids, limit):
            kill(self.pids(), signal.SIGKILL)
            gone(self.pids, limit)
        return bool(pids)


def without_rights(house: House, *command: str) -> list[str]:
    """A command as our own system user, who has no rights but finds the checkout open."""
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    reach = ["env", f"KEEP={house.checkout}", str(house.checkout / "deploy/host/reachable")]
    return [*reach, *drop, *command]


def owner() -> tuple[int, int]:
    """The user and group that Kahuna and Envoy run as."""
    entry = pwd.getpwnam(USER)
    return entry.pw_uid, entry.pw_gid


def in_room(house: House, *command: str, kvm: bool = False) -> list[str]:
    """A command beside the demo's own libvirtd."""
    room = str(house.checkout / "deploy/host/libvirtd-room")
    return ["env", f"KEEP={house.checkout}", f"KVM={int(kvm)}", room, str(house.libvirt), *command]


def processes() -> Iterator[Path]:
    """All processes, as directories of /proc, zombies apart."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            yield entry


def arguments(process: Path) -> list[str]:
    """What a process was started with; nothing for one that has gone."""
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def runs_with(program: str, argument: str) -> Callable[[Path], bool]:
    """Whether a process runs a program with an argument."""

    def matches(process: Path) -> bool:
        found = arguments(process)
        return argument in found and any(Path(word).name == program for word in found[:3])

    return matches


def runs_in_room(program: str, house: House) -> Callable[[Path], bool]:
    """Whether a process runs a program on the mounts of the demo's libvirtd."""

    def matches(process: Path) -> bool:
        try:
            if not (process / "comm").read_text().startswith(program[:15]):
                return False
            return f"{house.libvirt}/run /run/libvirt " in (process / "mountinfo").read_text()
        except OSError:
            return False

    return matches


def kill(pids: Sequence[int], number: signal.Signals) -> None:
    """Sends a signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(pids: Callable[[], Sequence[int]], limit: float) -> bool:
    """Waits until nothing is left."""
    end = time.monotonic() + limit
    while pids():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
