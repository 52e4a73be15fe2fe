"""Fingerprints that older agents wrote are unchanged, so that a newer agent changes nothing that works."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent_kaktus.compute import domain, seed
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.network import nftables
from agent_kaktus.network.adapter import Adapter, Attachment
from agent_kaktus.network.vnet import Subnet, Vnet
from agent_kaktus.storage.dir import disk_source
from agent_kaktus.storage.volume import Volume
from kowa.v2 import instance_pb2
from tests.kaktus.settings_of import settings_of

ADAPTER = Adapter(
    "00000000-0000-4000-8000-000000000001", 1, False, "nic", "s", "02:00:00:00:00:01", IPv4Address("10.9.0.2")
)
ROOT = Volume("00000000-0000-4000-8000-000000000003", 1, False, "root", "p", "", 1 << 30)
DATA = Volume("00000000-0000-4000-8000-000000000004", 1, False, "data", "p", "", 1 << 30)
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
    (ADAPTER.id,),
    metadata=(("k", "v"),),
    ssh_keys=("ssh-ed25519 AAAA me",),
)

ATTACHMENTS = (Attachment(ADAPTER, LAN, Vnet("v", 1, False, "vnet", "")),)


def test_filter_fingerprints_are_unchanged() -> None:
    assert nftables.tap_fingerprint(ADAPTER, 7) == "dd4f761ff4d52fbb/7"
    assert nftables.METADATA_FINGERPRINT == "83a321d8646a4ae6"


# Fingerprints of agents that wrote domains by ElementTree; the second path has every character that it escapes.
@pytest.mark.parametrize(
    ("pools", "fingerprint"),
    [
        ("/p", "8ba0f16ac7cc5461d8468e6680983de86f58c86a8b11d1676221941074ed1ec8"),
        ("/p\t\n\r\"'<&>{ü}", "247ff94a9a754dde321e1da4fa67265b48dfb41f0502f69732aba81f920f38c0"),
    ],
)
def test_the_domain_fingerprint_is_unchanged(pools: str, fingerprint: str) -> None:
    config = settings_of(Path(pools), Path("/m"))
    disks = tuple((volume, disk_source(config, volume.pool, volume.id)) for volume in (ROOT, DATA))
    assert domain.fingerprint(config, WEB, Devices(disks, ATTACHMENTS)) == fingerprint


def test_the_seed_fingerprint_is_unchanged() -> None:
    fingerprint = seed.fingerprint(settings_of(Path("/p"), Path("/m")), WEB, Devices((), ATTACHMENTS))
    assert fingerprint == "0902080FD2BB69D5391947EF7CBABEDF6DB0DD450FAEED4EAA6A225D03E82DEB"
