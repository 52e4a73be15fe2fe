"""What an older agent left on a host is recognised to the byte, so that a newer one changes nothing that works."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agent_kaktus.compute import seed
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.network import nftables
from agent_kaktus.network.adapter import Adapter, Attachment
from agent_kaktus.network.vnet import Subnet, Vnet
from kowa.v2 import instance_pb2
from tests.kaktus.settings_of import settings_of

NIC = Adapter(
    "00000000-0000-4000-8000-000000000001", 1, False, "nic", "s", "02:00:00:00:00:01", IPv4Address("10.9.0.2")
)
LAN = Subnet("s", 1, False, "lan", "v", IPv4Network("10.9.0.0/24"), IPv4Address("10.9.0.1"), ("9.9.9.9",))
WEB = Instance(
    "00000000-0000-4000-8000-000000000002",
    1,
    False,
    "web",
    1,
    1 << 28,
    instance_pb2.POWER_RUNNING,
    (),
    (NIC.id,),
    metadata=(("k", "v"),),
    ssh_keys=("ssh-ed25519 AAAA me",),
)


def test_rules_on_taps_and_around_metadata_services() -> None:
    assert nftables.tap_fingerprint(NIC, 7) == "dd4f761ff4d52fbb/7"
    assert nftables.METADATA_FINGERPRINT == "83a321d8646a4ae6"


def test_seeds() -> None:
    devices = Devices((), (Attachment(NIC, LAN, Vnet("v", 1, False, "vnet", "")),))
    fingerprint = seed.fingerprint(settings_of(Path("/p"), Path("/m")), WEB, devices)
    assert fingerprint == "0902080FD2BB69D5391947EF7CBABEDF6DB0DD450FAEED4EAA6A225D03E82DEB"
