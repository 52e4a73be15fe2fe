"""A clone of this checkout, and what people do in it."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.guest.build import build

ROOT = Path(__file__).parents[2]
# The set-up of a new .venv included.
UP_LIMIT_S = 800
# For a machine to say something on its console.
CONSOLE_LIMIT_S = 20
KINDS = (
    "region", "zone", "project", "vnet", "subnet", "storage-pool", "template", "volume", "adapter", "instance",
    "kaktus", "agent",
)  # fmt: skip


@dataclass(frozen=True)
class Output:
    """What a command said in a terminal, and how it ended."""

    text: str
    code: int


class Checkout:
    """A clean clone of its own, with its own ports, subnet and bridge names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("KOWABUNGA_", "KAHUNA_"))
        }
        # What was downloaded once for the checkout under test, the clone may use: the image's packages, and Python's,
        # as if it had been set up for an older pyproject.toml. A .venv made anew is the fresh machine's story.
        images = ROOT / ".cache" / "guest"
        build(images)
        shutil.copytree(images, folder / ".cache" / "guest", ignore=shutil.ignore_patterns(".*"))
        self.run(
            f"cp -a '{ROOT}/.venv' . && echo older >.venv/description.sha256"
            f" && sed -i 's#{ROOT}#{folder}#g' .venv/pyvenv.cfg $(grep -lI '{ROOT}' .venv/bin/*)"
        )

    def run(self, command: str, limit: float = UP_LIMIT_S) -> str:
        """What a shell command in it says. Fails with that when the command does."""
        done = self._run(command, limit)
        if done.returncode != 0:
            pytest.fail(f"{command}\n{done.stdout}", pytrace=False)
        return done.stdout

    def succeeds(self, command: str) -> bool:
        """Whether a shell command in it does."""
        return self._run(command, UP_LIMIT_S).returncode == 0

    def refused(self, command: str) -> str:
        """The one line that a command ends with, apart from make's."""
        done = self._run(command, UP_LIMIT_S)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("make")]
        if done.returncode == 0 or "Traceback" in done.stdout or not lines:
            pytest.fail(f"{command}\n{done.stdout}", pytrace=False)
        return lines[-1]

    def interrupted(self, command: str, at: str) -> Output:
        """What a command says in a terminal where somebody types Ctrl-C once it has shown this."""
        process, terminal = pty.fork()
        if process == 0:
            # As a shell starts it, though this test may run where Ctrl-C is not heard.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(self.folder)
            os.execvpe("bash", ["bash", "-c", f"exec {command}"], self.environment)  # noqa: S606
        shown, typed = "", False
        while select.select([terminal], [], [], UP_LIMIT_S)[0]:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # it has ended
                break
            if at in shown and not typed:
                os.write(terminal, b"\x03")
                typed = True
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.close(terminal)
        return Output(shown, code)

    def console(self, machine: str, shows: str, typed: str, answers: str) -> int:
        """Opens a machine's console in a terminal, types a line once it shows a text, and leaves after the answer."""
        command = f". .demo/env; exec .venv/bin/kowactl console {machine}"
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(self.folder)
            os.execve("/bin/bash", ["bash", "-c", command], self.environment)  # noqa: S606
        shown = b""
        for wanted, keys in ((shows, f"\r{typed}\r"), (answers, "\x1d")):
            while wanted.encode() not in shown:
                if not select.select([terminal], [], [], CONSOLE_LIMIT_S)[0]:
                    os.kill(process, signal.SIGKILL)
                    pytest.fail(f"{wanted!r} did not come; it showed {shown!r}")
                shown += os.read(terminal, 4096)
            os.write(terminal, keys.encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.close(terminal)
        return code

    def pids(self) -> dict[str, list[int]]:
        """The processes of its demo by name, guests among them."""
        lines = [line.partition(" pid ") for line in self.run("make -s status").splitlines()]
        return {name.strip(): [int(pid) for pid in re.findall(r"\d+", pids)] for name, found, pids in lines if found}

    def kowactl(self, words: str) -> str:
        """What its own kowactl prints, speaking to its demo."""
        return self.run(f". .demo/env; .venv/bin/kowactl {words}")

    def ids_by_kind(self, kinds: Iterable[str] = KINDS) -> dict[str, list[str]]:
        """The ids of all there is, by kind."""
        listed = {kind: self.kowactl(f"{kind} list -o json") for kind in kinds}
        return {kind: [resource["meta"]["id"] for resource in json.loads(text)] for kind, text in listed.items()}

    def domains(self) -> list[str]:
        """The machines that libvirt has."""
        socket = self.folder / ".demo/libvirt/run/libvirt-sock"
        return self.run(f"virsh -q -c 'qemu+unix:///system?socket={socket}' list --all --name").split()

    def _run(self, command: str, limit: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=limit, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
