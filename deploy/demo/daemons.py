"""The demo's processes: found by what they run, not by what a file says, so that kill -9 confuses nobody."""

import contextlib
import hashlib
import os
import pwd
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.house import House

USER = "kowabunga"
# In a daemon's environment: the digest of what it was started from.
MADE_OF = "KOWABUNGA_MADE_OF"


@dataclass(frozen=True, slots=True)
class Daemon:
    """One process of the demo. `owns` says of a process whether it is this one; it is made of `sources`, files and
    folders, and of its command: one that runs from others is replaced."""

    name: str
    command: Sequence[str]
    owns: Callable[[Path], bool]
    ports: Sequence[int] = ()
    sources: Sequence[Path] = ()

    def pids(self) -> list[int]:
        """The processes that run it."""
        return [int(process.name) for process in processes() if self.owns(process)]

    def log(self, house: House) -> Path:
        """What it says."""
        return house.logs / f"{self.name}.log"

    def start(self, house: House) -> "subprocess.Popen[bytes] | None":
        """Starts it in the background, in a session of its own, which no Ctrl-C reaches; nothing if it runs."""
        made_of = _digest(self.command, self.sources)
        running = self.pids()
        if running and all(_runs_from(pid, made_of) for pid in running):
            return None
        self.stop()
        house.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log(house).open("ab") as log:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=house.checkout,
                env={**os.environ, MADE_OF: made_of},
            )

    def stop(self, limit: float = 15) -> bool:
        """Ends it, by force after `limit` seconds. Says whether it ran."""
        pids = self.pids()
        kill(pids, signal.SIGTERM)
        if not gone(self.pids, limit):
            kill(self.pids(), signal.SIGKILL)
            gone(self.pids, limit)
        return bool(pids)


def _digest(command: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        for file in [source] if source.is_file() else sorted(source.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _runs_from(pid: int, made_of: str) -> bool:
    """Whether it was started with this in its environment; one that has just ended, too."""
    try:
        return f"{MADE_OF}={made_of}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return True


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


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens on a port."""

    program: str
    pid: int


def listener_of(port: int) -> Listener | None:
    """Nobody, if the port is free."""
    said = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    found = re.search(r'\("([^"]+)",pid=(\d+)', said)
    return Listener(found[1], int(found[2])) if found else None


def runs_with(program: str, *words: str) -> Callable[[Path], bool]:
    """Whether a process runs a program with these arguments, or is on its way to: each of the scripts that lead to a
    daemon has the whole of its command."""

    def matches(process: Path) -> bool:
        found = arguments(process)
        return all(word in found for word in words) and any(Path(word).name == program for word in found)

    return matches


def runs_in_room(program: str, house: House) -> Callable[[Path], bool]:
    """Whether a process runs a program on the mounts of the demo's libvirtd."""

    def matches(process: Path) -> bool:
        try:
            if not (process / "comm").read_text().startswith(program[:15]):
                return False
            return (process / "root/run/libvirt").samefile(house.libvirt / "run")
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
