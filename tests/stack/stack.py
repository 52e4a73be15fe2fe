"""The whole stack as real processes: Kahuna, and a host with a libvirtd and an agent, on a network that can be cut."""

import contextlib
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from deploy.programs import free_port
from kowa import contract, errors
from kowa.calls import Answer, prepare
from kowa.client import Client
from tests.kaktus.hosts import Host, private_host
from tests.stack.program import Program
from tests.stack.reaper import Reaper

M = TypeVar("M", bound=Message)
T = TypeVar("T")

MIB = 1 << 20
SHUTDOWN_LIMIT = 1  # seconds: the tiny guest hears nothing
ANSWER_LIMIT_S = 90.0  # for Kahuna to answer, dying meanwhile
TINY = "tiny.raw"
# A boot sector that halts the processor for good: a machine that costs nothing.
SECTOR = b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
BENCHMARKS = IPv4Network("198.18.0.0/15")  # used by nobody, RFC 2544


class Stack:
    """A Kahuna and a host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.base
        self.database = host.base / "kahuna" / "kahuna.db"
        blocks = list(BENCHMARKS.subnets(new_prefix=30))
        here, there, *_ = random.choice(blocks).hosts()  # noqa: S311 - so that two runs keep apart
        self.here = str(here)
        self._link_up(f"{here}/30", f"{there}/30")
        self.tiny = self._offer_tiny()
        self.api, self.fleet = (f"{address}:{free_port(address)}" for address in ("127.0.0.1", self.here))
        python = sys.executable
        self.kahuna = Program(
            "kahuna", [python, "-m", "kahuna.main", "--config", str(self._kahuna_toml()), "serve"], self.folder
        )
        inside = ["ip", "netns", "exec", host.namespace]
        self.agent = Program(
            "agent", [*inside, python, "-m", "agent_kaktus.main", "--config", str(self._agent_toml())], self.folder
        )
        key = self.folder / "admin.key"
        subprocess.run(
            [python, "-m", "kahuna.main", "--config", str(self._kahuna_toml()), "admin-key", "--out", str(key)],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        self.client = Client(self.api, key=key.read_text().strip(), insecure=True)

    @property
    def programs(self) -> tuple[Program, Program]:
        return self.kahuna, self.agent

    @property
    def faults(self) -> list[str]:
        """What ended though nobody killed it."""
        return [fault for program in self.programs for fault in program.faults]

    def call(self, verb: str, kind: type[M], **fields: Any) -> Answer[Any]:
        """One call, repeated as the same until Kahuna answers, as a careful caller does."""
        method = contract.load().kinds[kind.DESCRIPTOR.name].service.methods[verb]
        request = prepare(method, **fields)
        return self.retry(lambda: self.client.call(method, request))

    def create(self, resource: M) -> M:
        """A new resource, committed."""
        noun = contract.load().kinds[resource.DESCRIPTOR.name].noun
        made: M = self.call("create", type(resource), **{noun: resource}).resource
        return made

    def get(self, resource: M) -> M:
        """The resource as it is now."""
        found: M = self.call("get", type(resource), id=resource.meta.id).resource  # type: ignore[attr-defined]
        return found

    def list(self, kind: type[M], condition: str = "") -> list[M]:
        """All that match."""
        return self.retry(lambda: list(self.client.of(kind).list(filter=condition)))

    def delete(self, resource: Message) -> None:
        """Deleted for good, or on its way: what is not there any more needs it no more."""
        with contextlib.suppress(errors.NotFound):
            self.call("delete", type(resource), id=resource.meta.id)  # type: ignore[attr-defined]

    def is_marked(self, resource: Message) -> bool:
        """Whether it is gone or on its way."""
        id_ = resource.meta.id  # type: ignore[attr-defined]
        return not self.list(type(resource), f'meta.id = "{id_}" AND meta.state != STATE_DELETING')

    def retry(self, call: Callable[[], T]) -> T:
        """What a call answers, however often Kahuna dies meanwhile."""
        end = time.monotonic() + ANSWER_LIMIT_S
        while True:
            try:
                return call()
            except errors.Unavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """No packet passes between the host and Kahuna, and nobody is told."""
        self.host.run("nft", f"add table inet cut; {_hook('input', 'iifname')}; {_hook('output', 'oifname')}")
        try:
            yield
        finally:
            self.host.run("nft", "delete table inet cut")

    def close(self) -> None:
        self.client.close()
        for program in reversed(self.programs):
            program.stop()

    def _link_up(self, here: str, there: str) -> None:
        """The device on this side goes with the namespace."""
        device = f"s{self.host.namespace.rpartition('-')[2]}"
        peer = ("type", "veth", "peer", "name", "uplink", "netns", self.host.namespace)
        self.host.run("ip", "link", "add", device, *peer, inside=False)
        for name, address, inside in ((device, here, False), ("uplink", there, True)):
            self.host.run("ip", "address", "add", address, "dev", name, inside=inside)
            self.host.run("ip", "link", "set", name, "up", inside=inside)

    def _offer_tiny(self) -> str:
        """Puts the guest that does nothing into the import folder. Returns its checksum."""
        image = self.folder / "import" / TINY
        image.write_bytes(SECTOR.ljust(MIB, b"\0"))
        return hashlib.sha256(image.read_bytes()).hexdigest()

    def _kahuna_toml(self) -> Path:
        return self._toml(
            "kahuna",
            state=str(self.folder / "kahuna"),
            api=self.api,
            fleet=self.fleet,
            metrics="",
            names=["localhost", self.here],
        )

    def _agent_toml(self) -> Path:
        return self._toml(
            "agent",
            server=self.fleet,
            ca=str(self.folder / "kahuna" / "ca.pem"),
            token=str(self.folder / "token"),
            state=str(self.host.state),
            pools=str(self.host.pools),
            machines=str(self.host.instances),
            import_dir=str(self.folder / "import"),
            import_hosts=[self.here],
            libvirt_uri=self.host.uri,
            accelerator="qemu",
            hold_gateway=True,
            shutdown_limit=SHUTDOWN_LIMIT,
        )

    def _toml(self, name: str, **settings: object) -> Path:
        path = self.folder / f"{name}.toml"
        lines = (f"{key} = {_written(value)}" for key, value in settings.items())
        path.write_text("\n".join(lines) + "\n")
        return path


@contextmanager
def stack() -> Iterator[Stack]:
    """Left as it was found, whatever happens in it."""
    with private_host() as host:
        reaper = Reaper(host.base / "libvirt/run/qemu")
        made = Stack(host)
        try:
            made.kahuna.start()
            yield made
        finally:
            made.close()
            reaper.close()
        assert not made.faults


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _hook(chain: str, direction: str) -> str:
    hook = f"{{ type filter hook {chain} priority 0; policy accept; }}"
    return f"add chain inet cut {chain} {hook}; add rule inet cut {chain} {direction} uplink drop"
