"""A test host: its own network namespace with a private libvirtd, and agents that run in it."""

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy import programs
from kowa.fleet.v1 import fleet_pb2

REPOSITORY = Path(__file__).parents[2]
GUEST = Path(os.environ.get("KOWA_GUEST", REPOSITORY / ".cache" / "guest"))
IMAGE = "kowa-guest.qcow2"


class Host:
    """A network namespace with a libvirtd, and the folders of an agent."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.namespace = base.name
        self.pools, self.instances, self.state = base / "pools", base / "machines", base / "state"
        self.uri = f"qemu+unix:///system?socket={base}/libvirt/run/libvirt-sock"
        self._libvirtd: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        self.run("ip", "netns", "add", self.namespace, inside=False)
        self.run("ip", "link", "set", "lo", "up")
        self.state.mkdir(mode=0o700)
        (self.base / "import").mkdir()
        self.start_libvirtd()

    def start_libvirtd(self) -> None:
        host = [str(REPOSITORY / "deploy/host/private-libvirtd"), str(self.base / "libvirt")]
        command = ["ip", "netns", "exec", self.namespace, *host]
        log = self.base / "libvirtd.out"
        self._libvirtd = programs.start(command, log, environment={"REACHABLE": str(self.base)})
        programs.await_ready(self._libvirtd, lambda: self.virsh("version", check=False), "libvirtd", log)

    def kill_libvirtd(self) -> None:
        pid = int((self.base / "libvirt/run/libvirtd.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        assert self._libvirtd is not None
        self._libvirtd.wait(60)

    def close(self) -> None:
        for pid in self.guest_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._libvirtd is not None:
            programs.end(self._libvirtd)
        self.run("ip", "netns", "delete", self.namespace, inside=False, check=False)

    def guest_pids(self) -> list[int]:
        """The process ids of this host's QEMUs."""
        pids = []
        for path in (self.base / "libvirt/run/qemu").glob("kowa-*.pid"):
            with suppress(OSError, ValueError):  # it ends, or its file is being written
                pid = int(path.read_text())
                if str(self.base) in Path(f"/proc/{pid}/cmdline").read_text():
                    pids.append(pid)
        return pids

    def run(self, *command: str, inside: bool = True, check: bool = True) -> str:
        prefix = ["ip", "netns", "exec", self.namespace] if inside else []
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0 or not check, f"{' '.join(command)}: {done.stderr}"
        return done.stdout if done.returncode == 0 else ""

    def virsh(self, *command: str, check: bool = True) -> str:
        return self.run("virsh", "-q", "-c", self.uri, *command, inside=False, check=check).strip()

    def console(self, instance: str) -> str:
        """All that an instance has printed on its console."""
        path = self.instances / instance / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def offer_guest(self) -> tuple[str, str]:
        """Puts the guest image into the import folder. Returns its name and checksum."""
        image = self.base / "import" / IMAGE
        shutil.copyfile(GUEST / IMAGE, image)
        return IMAGE, hashlib.sha256(image.read_bytes()).hexdigest()

    @contextmanager
    def agent(self, **settings: object) -> "Iterator[Agent]":
        agent = Agent(self, {"shutdown_limit": 20, **settings})
        try:
            yield agent
        finally:
            agent.stop()


class Agent:
    """An agent process in a host's namespace, fed through pipes."""

    def __init__(self, host: Host, settings: Mapping[str, object]) -> None:
        config = host.base / "kaktus.toml"
        config.write_text(_toml(host, settings))
        self.reports: dict[str, fleet_pb2.Report] = {}
        self._reported = threading.Condition()
        self._watched: dict[str, list[fleet_pb2.Report]] = {}
        self._log = (host.base / "agent.log").open("ab")
        self._process = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                host.namespace,
                sys.executable,
                str(Path(__file__).with_name("piped_agent.py")),
                config,
            ],
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/sdk"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def send(self, objects: Mapping[str, fleet_pb2.Object]) -> None:
        data = fleet_pb2.Batch(objects=objects.values()).SerializeToString()
        assert self._process.stdin is not None
        self._process.stdin.write(base64.b64encode(data) + b"\n")
        self._process.stdin.flush()

    def until(self, id_: str, accepts: Callable[[fleet_pb2.Report], bool], timeout: float = 30) -> fleet_pb2.Report:
        """Waits until `accepts` is true of an object's last report, and returns that report."""

        def is_accepted() -> bool:
            report = self.reports.get(id_)
            return report is not None and accepts(report)

        with self._reported:
            is_reported = self._reported.wait_for(is_accepted, timeout)
            assert is_reported, f"after {timeout:.0f} s the last report is {self.reports.get(id_)}"
            return self.reports[id_]

    def watch(self, id_: str, told: list[fleet_pb2.Report]) -> None:
        """Adds all further reports of an object to a list."""
        self._watched[id_] = told

    def stop(self) -> None:
        """Closes its pipe; the agent then ends as a terminated one does."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join(10)
        self._log.close()

    def namespaces(self) -> int:
        """The number of network namespaces that it has open."""
        count = 0
        with os.scandir(f"/proc/{self._process.pid}/fd") as descriptors:
            for descriptor in descriptors:
                with suppress(FileNotFoundError):  # closed in the meantime
                    count += os.readlink(descriptor).startswith("net:")  # noqa: PTH115
        return count

    def is_dead(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = fleet_pb2.Report.FromString(base64.b64decode(line))
            with self._reported:
                self.reports[report.id] = report
                self._watched.get(report.id, []).append(report)
                self._reported.notify_all()


def _toml(host: Host, settings: Mapping[str, object]) -> str:
    base = host.base
    all_settings: dict[str, object] = {
        "server": "127.0.0.1:1",
        "ca": str(base / "ca"),
        "token": str(base / "token"),
        "state": str(host.state),
        "pools": str(host.pools),
        "machines": str(host.instances),
        "import_dir": str(base / "import"),
        "libvirt_uri": host.uri,
        "accelerator": "qemu",
        **settings,
    }
    lines = (
        f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for key, value in all_settings.items()
    )
    return "\n".join(lines) + "\n"


@contextmanager
def private_host() -> Iterator[Host]:
    """A new host; nothing of it is left afterwards, also after a failure."""
    base = Path(tempfile.mkdtemp(prefix="host-"))
    base.chmod(0o711)
    host = Host(base)
    try:
        host.open()
        yield host
    finally:
        host.close()
        if not os.environ.get("KOWA_KEEP_HOSTS"):
            shutil.rmtree(base, ignore_errors=True)
