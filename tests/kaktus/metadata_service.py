"""A host's metadata service. Arguments: BRIDGE VNET ADDRESS MAC. Prints `ready`, and ends when its input does."""

import asyncio
import sys
from ipaddress import IPv4Network

from agent_kaktus.kinds import KINDS
from agent_kaktus.metadata.server import Server
from agent_kaktus.metadata.services import MetadataServices
from agent_kaktus.metadata.tokens import Tokens
from agent_kaktus.network.nftables import METADATA_FINGERPRINT, MetadataFilter
from agent_kaktus.network.vnet import Vnet
from tests.kaktus.slices import id_of, slice_with_network


async def main(bridge: str, vnet: str, address: str, mac: str) -> None:
    slice_ = slice_with_network()
    slice_.vnet(vnet, bridge)
    slice_.subnet(vnet=vnet)
    slice_.adapter("nic", address, mac)
    slice_.instance("web", (), ("nic",))
    desired = KINDS.parse(slice_.objects)
    served_vnet, metadata_filter = desired.of(Vnet)[id_of(vnet)], MetadataFilter("kaktus_test")
    services = MetadataServices(Server(lambda: desired, Tokens(b"k" * 32)))
    networks = frozenset({IPv4Network("10.9.0.0/24")})
    # However often and in whatever order it is called, the last call counts.
    for wanted in (networks, frozenset({IPv4Network("10.8.0.0/24")}), networks, networks):
        await services.serve(served_vnet, wanted, metadata_filter)
        assert (services.observe(), await metadata_filter.observe()) == ({served_vnet.id: wanted}, METADATA_FINGERPRINT)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for _ in range(2):
        await services.remove(served_vnet, metadata_filter)
        assert (services.observe(), await metadata_filter.observe()) == ({}, "")
    await services.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
