"""A clone of this checkout, and commands in it as users give them."""

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
UP_TIMEOUT_S = 800  # for `make demo` with a new .venv
CONSOLE_TIMEOUT_S = 20  # for output on an instance's console
KINDS = (
    "region", "zone", "project", "vnet", "subnet", "storage-pool", "template", "volume", "adapter", "instance",
    "kaktus", "agent",
)  # fmt: skip


@dataclass(frozen=True)
class Output:
    """The output of a command in a terminal, and its exit code."""

    text: str
    code: int


class Checkout:
    """A new clone, whose demo has its own ports, subnet and bridge names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("KOWABUNGA_", "KAHUNA_"))
        }
        # The clone uses the downloads of the checkout under test: the image's packages, and Python's, as if it had been
        # set up for an older pyproject.toml. A new .venv is tested on the fresh machine.
        images = ROOT / ".cache" / "guest"
        build(images)
        shutil.copytree(images, folder / ".cache" / "guest", ignore=shutil.ignore_patterns(".*"))
        self.run(
            f"cp -a '{ROOT}/.venv' . && echo older >.venv/description.sha256"
            f" && sed -i 's#{ROOT}#{folder}#g' .venv/pyvenv.cfg $(grep -lI '{ROOT}' .venv/bin/*)"
        )

    def run(self, command: str, timeout: float = UP_TIMEOUT_S) -> str:
        """The output of a shell command in the clone; fails with it when the command does."""
        done = self._run(command, timeout)
        if done.returncode != 0:
            pytest.fail(f"{command}\n{done.stdout}", pytrace=False)
        return done.stdout

    def succeeds(self, command: str) -> bool:
        """Whether a shell command in the clone succeeds."""
        return self._run(command, UP_TIMEOUT_S).returncode == 0

    def refusal(self, command: str) -> str:
        """The last line of a command that must fail, apart from make's own."""
        done = self._run(command, UP_TIMEOUT_S)
        lines = [line for line in done.stdout.splitlines() if not line.startswith("make")]
        if done.returncode == 0 or "Traceback" in done.stdout or not lines:
            pytest.fail(f"{command}\n{done.stdout}", pytrace=False)
        return lines[-1]

    def interrupted(self, command: str, at: str) -> Output:
        """The output of a command in a terminal, interrupted by Ctrl-C once it has printed `at`."""
        process, terminal = pty.fork()
        if process == 0:
            # As a shell would start it: this test may run with SIGINT ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(self.folder)
            os.execvpe("bash", ["bash", "-c", f"exec {command}"], self.environment)  # noqa: S606
        printed, is_interrupted = "", False
        while select.select([terminal], [], [], UP_TIMEOUT_S)[0]:
            try:
                printed += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # it has ended
                break
            if at in printed and not is_interrupted:
                os.write(terminal, b"\x03")
                is_interrupted = True
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.close(terminal)
        return Output(printed, code)

    def console(self, instance: str, prompt: str, line: str, response: str) -> int:
        """Types a line into an instance's console after `prompt`, leaves it after `response`; returns the exit code."""
        command = f". .demo/env; exec .venv/bin/kowactl console {instance}"
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(self.folder)
            os.execve("/bin/bash", ["bash", "-c", command], self.environment)  # noqa: S606
        printed = b""
        for expected, keys in ((prompt, f"\r{line}\r"), (response, "\x1d")):
            while expected.encode() not in printed:
                if not select.select([terminal], [], [], CONSOLE_TIMEOUT_S)[0]:
                    os.kill(process, signal.SIGKILL)
                    pytest.fail(f"{expected!r} was not printed, but {printed!r}")
                printed += os.read(terminal, 4096)
            os.write(terminal, keys.encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.close(terminal)
        return code

    def pids(self) -> dict[str, list[int]]:
        """The process ids of its demo's programs and guests, by name."""
        lines = [line.partition(" pid ") for line in self.run("make -s status").splitlines()]
        return {name.strip(): [int(pid) for pid in re.findall(r"\d+", pids)] for name, found, pids in lines if found}

    def kowactl(self, arguments: str) -> str:
        """The output of its own kowactl, connected to its demo."""
        return self.run(f". .demo/env; .venv/bin/kowactl {arguments}")

    def ids_by_kind(self, kinds: Iterable[str] = KINDS) -> dict[str, list[str]]:
        """The ids of all resources, by kind."""
        listed = {kind: self.kowactl(f"{kind} list -o json") for kind in kinds}
        return {kind: [resource["meta"]["id"] for resource in json.loads(text)] for kind, text in listed.items()}

    def domains(self) -> list[str]:
        """The names of libvirt's domains."""
        socket = self.folder / ".demo/libvirt/run/libvirt-sock"
        return self.run(f"virsh -q -c 'qemu+unix:///system?socket={socket}' list --all --name").split()

    def _run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
