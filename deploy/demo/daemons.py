"""The demo's processes: found by their command lines, not by pid files, which would be wrong after a kill -9."""

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
# The variable in a daemon's environment that has the digest of its command and sources.
SOURCES_DIGEST = "KOWABUNGA_SOURCES_DIGEST"


@dataclass(frozen=True, slots=True)
class Daemon:
    """One process of the demo. `owns` tells whether a process is this daemon. One that runs is replaced when its
    command or its `sources` (files and folders) have changed."""

    name: str
    command: Sequence[str]
    owns: Callable[[Path], bool]
    ports: Sequence[int] = ()
    sources: Sequence[Path] = ()

    def pids(self) -> list[int]:
        """The processes that run it."""
        return [int(process.name) for process in processes() if self.owns(process)]

    def log(self, layout: Layout) -> Path:
        """The file that has its output."""
        return layout.logs / f"{self.name}.log"

    def start(self, layout: Layout) -> "subprocess.Popen[bytes] | None":
        """Starts it in the background, in a session of its own, which no Ctrl-C reaches. Returns None if it runs."""
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

    def stop(self, timeout: float = 15) -> bool:
        """Ends it, by force after `timeout` seconds. Returns whether it ran."""
        pids = self.pids()
        kill(pids, signal.SIGTERM)
        if not programs.wait(lambda: not self.pids(), timeout):
            kill(self.pids(), signal.SIGKILL)
            programs.wait(lambda: not self.pids(), timeout)
        return bool(pids)


def _digest(command: Sequence[str], sources: Sequence[Path]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        for file in [source] if source.is_file() else sorted(source.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"\0{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _was_started_from(pid: int, sources_digest: str) -> bool:
    """Whether it was started with this digest in its environment. True also for one that has just ended."""
    try:
        return f"{SOURCES_DIGEST}={sources_digest}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return True


def unprivileged(layout: Layout, *command: str) -> list[str]:
    """A command run as our own system user, who has no privileges but can read the checkout."""
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    open_checkout = ["env", f"REACHABLE={layout.checkout}", str(layout.checkout / "deploy/host/reachable")]
    return [*open_checkout, *drop, *command]


def owner() -> tuple[int, int]:
    """The user and group that Kahuna and Envoy run as."""
    entry = pwd.getpwnam(USER)
    return entry.pw_uid, entry.pw_gid


def with_libvirtd(layout: Layout, *command: str, kvm: bool = False) -> list[str]:
    """A command run in the mount namespace of the demo's own libvirtd; without a command, libvirtd itself."""
    script = str(layout.checkout / "deploy/host/private-libvirtd")
    return ["env", f"REACHABLE={layout.checkout}", f"KVM={int(kvm)}", script, str(layout.libvirt), *command]


def processes() -> Iterator[Path]:
    """All processes but this one, as directories of /proc."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            yield entry


def arguments(process: Path) -> list[str]:
    """The command line of a process; empty for one that has ended."""
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


@dataclass(frozen=True, slots=True)
class Listener:
    """The process that listens on a port."""

    program: str
    pid: int


def listener_of(port: int) -> Listener | None:
    """The process that listens on a port; None if the port is free."""
    listing = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    found = re.search(r'\("([^"]+)",pid=(\d+)', listing)
    return Listener(found[1], int(found[2])) if found else None


def runs_with(program: str, *wanted: str) -> Callable[[Path], bool]:
    """Matches a process that runs a program with these arguments, also the scripts that start it: each has the whole
    command of the daemon among its own arguments."""

    def matches(process: Path) -> bool:
        found = arguments(process)
        return all(word in found for word in wanted) and any(Path(word).name == program for word in found)

    return matches


def runs_in_libvirtd(program: str, layout: Layout) -> Callable[[Path], bool]:
    """Matches a process that runs a program in the mount namespace of the demo's libvirtd."""

    def matches(process: Path) -> bool:
        try:
            if not (process / "comm").read_text().startswith(program[:15]):
                return False
            return (process / "root/run/libvirt").samefile(layout.libvirt / "run")
        except OSError:
            return False

    return matches


def kill(pids: Sequence[int], number: signal.Signals) -> None:
    """Sends a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
