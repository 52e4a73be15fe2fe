"""The whole stack as real processes: Kahuna, and a host with libvirtd and an agent, on a network that can be cut."""

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
SHUTDOWN_TIMEOUT_S = 1  # the tiny guest ignores the power button
ANSWER_TIMEOUT_S = 90.0  # for Kahuna to answer, restarts included
TINY = "tiny.raw"
# A boot sector that halts the processor for good: an instance that costs nothing.
SECTOR = b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
TEST_NETWORK = IPv4Network("198.18.0.0/15")  # for benchmarks only, RFC 2544


class Stack:
    """A Kahuna, and a host with its agent, linked by a network."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = host.base
        self.database = host.base / "kahuna" / "kahuna.db"
        blocks = list(TEST_NETWORK.subnets(new_prefix=30))
        kahuna_address, host_address, *_ = random.choice(blocks).hosts()  # noqa: S311 - runs at a time differ
        self.kahuna_address = str(kahuna_address)
        self._link_up(f"{kahuna_address}/30", f"{host_address}/30")
        self.tiny = self._offer_tiny()
        self.api, self.fleet = (f"{address}:{free_port(address)}" for address in ("127.0.0.1", self.kahuna_address))
        python = sys.executable
        self.kahuna = Program(
            "kahuna", [python, "-m", "kahuna.main", "--config", str(self._kahuna_toml()), "serve"], self.folder
        )
        enter_host = ["ip", "netns", "exec", host.namespace]
        self.agent = Program(
            "agent", [*enter_host, python, "-m", "agent_kaktus.main", "--config", str(self._agent_toml())], self.folder
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
        """The exits that the test did not cause."""
        return [fault for program in self.programs for fault in program.faults]

    def call(self, verb: str, kind: type[M], **fields: Any) -> Answer[Any]:
        """One call, repeated with the same request id until Kahuna answers."""
        method = contract.load().kinds[kind.DESCRIPTOR.name].service.methods[verb]
        request = prepare(method, **fields)
        return self.retry(lambda: self.client.call(method, request))

    def create(self, resource: M) -> M:
        """Creates a resource, and returns it as committed."""
        noun = contract.load().kinds[resource.DESCRIPTOR.name].noun
        created: M = self.call("create", type(resource), **{noun: resource}).resource
        return created

    def get(self, resource: M) -> M:
        """The resource as it is now."""
        found: M = self.call("get", type(resource), id=resource.meta.id).resource  # type: ignore[attr-defined]
        return found

    def list(self, kind: type[M], condition: str = "") -> list[M]:
        """All resources of a kind that match the condition."""
        return self.retry(lambda: list(self.client.of(kind).list(filter=condition)))

    def delete(self, resource: Message) -> None:
        """Deletes a resource; one that does not exist any more is fine, too."""
        with contextlib.suppress(errors.NotFound):
            self.call("delete", type(resource), id=resource.meta.id)  # type: ignore[attr-defined]

    def is_being_deleted(self, resource: Message) -> bool:
        """Whether a resource is being deleted, or is gone."""
        id_ = resource.meta.id  # type: ignore[attr-defined]
        return not self.list(type(resource), f'meta.id = "{id_}" AND meta.state != STATE_DELETING')

    def retry(self, call: Callable[[], T]) -> T:
        """The result of a call, repeated while Kahuna is unavailable."""
        end = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                return call()
            except errors.Unavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Drops all packets between the host and Kahuna; no connection is closed."""
        self.host.run("nft", f"add table inet cut; {_drop_rule('input', 'iifname')}; {_drop_rule('output', 'oifname')}")
        try:
            yield
        finally:
            self.host.run("nft", "delete table inet cut")

    def close(self) -> None:
        self.client.close()
        for program in reversed(self.programs):
            program.stop()

    def _link_up(self, kahuna_address: str, host_address: str) -> None:
        """Links both by a pair of devices, which is removed with the host's namespace."""
        device = f"s{self.host.namespace.rpartition('-')[2]}"
        peer = ("type", "veth", "peer", "name", "uplink", "netns", self.host.namespace)
        self.host.run("ip", "link", "add", device, *peer, inside=False)
        for name, address, inside in ((device, kahuna_address, False), ("uplink", host_address, True)):
            self.host.run("ip", "address", "add", address, "dev", name, inside=inside)
            self.host.run("ip", "link", "set", name, "up", inside=inside)

    def _offer_tiny(self) -> str:
        """Puts the image of a guest that does nothing into the import folder. Returns its checksum."""
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
            names=["localhost", self.kahuna_address],
        )

    def _agent_toml(self) -> Path:
        return self._toml(
            "agent",
            servers=[self.fleet],
            ca=str(self.folder / "kahuna" / "ca.pem"),
            token=str(self.folder / "token"),
            state=str(self.host.state),
            pools=str(self.host.pools),
            machines=str(self.host.instances),
            import_dir=str(self.folder / "import"),
            import_hosts=[self.kahuna_address],
            libvirt_uri=self.host.uri,
            accelerator="qemu",
            hold_gateway=True,
            shutdown_limit=SHUTDOWN_TIMEOUT_S,
        )

    def _toml(self, name: str, **settings: object) -> Path:
        path = self.folder / f"{name}.toml"
        lines = (f"{key} = {_toml_value(value)}" for key, value in settings.items())
        path.write_text("\n".join(lines) + "\n")
        return path


@contextmanager
def stack() -> Iterator[Stack]:
    """A new stack; nothing of it is left afterwards, also after a failure."""
    with private_host() as host:
        reaper = Reaper(host.base / "libvirt/run/qemu")
        new_stack = Stack(host)
        try:
            new_stack.kahuna.start()
            yield new_stack
        finally:
            new_stack.close()
            reaper.close()
        assert not new_stack.faults


def _toml_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _drop_rule(chain: str, direction: str) -> str:
    hook = f"{{ type filter hook {chain} priority 0; policy accept; }}"
    return f"add chain inet cut {chain} {hook}; add rule inet cut {chain} {direction} uplink drop"
