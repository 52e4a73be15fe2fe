"""The demo's files, ports and addresses."""

import ipaddress
import json
import socket
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from kowa import files

CHECKOUT = Path(__file__).resolve().parents[2]
# Each checkout takes a free slot: ten ports, counted from FIRST_PORT, and a subnet of SUBNET_RANGE.
FIRST_PORT = 17440
SUBNET_RANGE = ipaddress.IPv4Network("10.88.0.0/16")
MAX_SLOTS = 200


@dataclass(frozen=True, slots=True)
class Slot:
    """The ports and the subnet of one checkout."""

    api: int
    metrics: int
    fleet: int
    gateway: int
    rest: int
    cidr: str


class Layout:
    """The demo of one checkout."""

    def __init__(self, checkout: Path = CHECKOUT) -> None:
        self.checkout = checkout
        self.root = checkout / ".demo"
        self.logs = self.root / "log"
        self.kahuna = self.root / "kahuna"
        self.gateway = self.root / "gateway"
        self.kaktus = self.root / "kaktus"
        self.libvirt = self.root / "libvirt"
        self.guest = checkout / ".cache" / "guest"
        self.admin_key = self.root / "admin.key"
        self.agent_token = self.kaktus / "token"
        self.env = self.root / "env"
        self.before = self.root / "before.json"
        self.bin = checkout / ".venv" / "bin"

    @property
    def ca(self) -> Path:
        """The CA certificate that users and agents trust."""
        return self.kahuna / "ca.pem"

    @cached_property
    def slot(self) -> Slot:
        """The checkout's ports and subnet, chosen at the first call and stored. Raises SystemExit when none is free."""
        file = self.root / "slot.json"
        if file.exists():
            return Slot(**json.loads(file.read_text()))
        slot = next(_free_slots(self.checkout), None)
        if slot is None:
            raise SystemExit(
                f"demo: no free ports from {FIRST_PORT} on, or no free subnet in {SUBNET_RANGE}; stop other demos"
            )
        self.root.mkdir(mode=0o711, exist_ok=True)
        files.write(file, json.dumps(asdict(slot)).encode(), mode=0o644)
        return slot


def _is_free(port: int) -> bool:
    """Whether a program can listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_slots(checkout: Path) -> Iterator[Slot]:
    """Free slots, from a first one that differs between checkouts: a free slot may be another's whose demo is down."""
    taken = [ipaddress.ip_network(route) for route in _routes()]
    first = zlib.crc32(bytes(checkout))
    for number in ((first + offset) % MAX_SLOTS for offset in range(MAX_SLOTS)):
        base = FIRST_PORT + 10 * number
        subnet = ipaddress.IPv4Network((int(SUBNET_RANGE.network_address) + 256 * number, 24))
        ports = [base + index for index in range(5)]
        if all(map(_is_free, ports)) and not any(subnet.overlaps(network) for network in taken):
            api, metrics, fleet, gateway, rest = ports
            yield Slot(api, metrics, fleet, gateway, rest, str(subnet))


def _routes() -> Iterator[str]:
    routes = json.loads(subprocess.run(["ip", "-j", "-4", "route"], capture_output=True, check=True).stdout or "[]")
    return (route["dst"] for route in routes if route["dst"] != "default")
