"""The demo's processes: found by what they run, not by what a file says, so that kill -9 confuses nobody."""

import contextlib
import hashlib
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import programs
from deploy.demo.layout import Layout

USER = "kowabunga"
# In a daemon's environment: the digest of what it was started from.
SOURCES_DIGEST = "KOWABUNGA_SOURCES_DIGEST"


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

    def log(self, layout: Layout) -> Path:
        """What it says."""
        return layout.logs / f"{self.name}.log"

    def start(self, layout: Layout) -> "subprocess.Popen[bytes] | None":
        """Starts it in the background, in a session of its own, which no Ctrl-C reaches; nothing if it runs."""
        sources_digest = _digest(self.command, self.sources)
        running = self.pids()
        if running and all(_was_started_from(pid, sources_digest) for pid in running):
            return None
        self.stop()
        layout.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {SOURCES_DIGEST: sources_digest}
        return programs.start(
            self.command, self.log(layout), cwd=layout.checkout, environment=environment, own_session=True
        )

    def stop(self, limit: float = 15) -> bool:
        """Ends it, by force after `limit` seconds. Says whether it ran."""
        pids = self.pids()
        kill(pids, signal.SIGTERM)
        if not programs.wait(lambda: not self.pids(), limit):
            kill(self.pids(), signal.SIGKILL)
            programs.wait(lambda: not self.pids(), limit)
        return bool(pids)


def _digest(command: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        for file in [source] if source.is_file() else sorted(source.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _was_started_from(pid: int, sources_digest: str) -> bool:
    """Whether it was started with this in its environment; one that has just ended, too."""
    try:
        return f"{SOURCES_DIGEST}={sources_digest}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return True


def unprivileged(layout: Layout, *command: str) -> list[str]:
    """A command as our own system user, who has no rights but finds the checkout open."""
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    reach = ["env", f"KEEP={layout.checkout}", str(layout.checkout / "deploy/host/reachable")]
    return [*reach, *drop, *command]


def owner() -> tuple[int, int]:
    """The user and group that Kahuna and Envoy run as."""
    entry = pwd.getpwnam(USER)
    return entry.pw_uid, entry.pw_gid


def beside_libvirtd(layout: Layout, *command: str, kvm: bool = False) -> list[str]:
    """A command beside the demo's own libvirtd."""
    room = str(layout.checkout / "deploy/host/private-libvirtd")
    return ["env", f"KEEP={layout.checkout}", f"KVM={int(kvm)}", room, str(layout.libvirt), *command]


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


def runs_beside_libvirtd(program: str, layout: Layout) -> Callable[[Path], bool]:
    """Whether a process runs a program on the mounts of the demo's libvirtd."""

    def matches(process: Path) -> bool:
        try:
            if not (process / "comm").read_text().startswith(program[:15]):
                return False
            return (process / "root/run/libvirt").samefile(layout.libvirt / "run")
        except OSError:
            return False

    return matches


def kill(pids: Sequence[int], number: signal.Signals) -> None:
    """Sends a signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
