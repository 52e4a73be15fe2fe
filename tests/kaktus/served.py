"""A host's metadata service: `served.py BRIDGE VNET ADDRESS MAC` says `ready`, and ends with its input."""

import asyncio
import sys
from ipaddress import IPv4Network

from agent_kaktus.metadata.server import Server
from agent_kaktus.metadata.services import Services
from agent_kaktus.metadata.tokens import Tokens
from agent_kaktus.network.wall import SEAL, Wall
from agent_kaktus.parse import parse
from tests.kaktus.slices import id_of, small_house


async def main(bridge: str, vnet: str, address: str, mac: str) -> None:
    slice_ = small_house()
    slice_.vnet(vnet, bridge)
    slice_.subnet(vnet=vnet)
    slice_.adapter("card", address, mac)
    slice_.instance("web", (), ("card",))
    desired = parse(slice_.objects)
    segment, wall = desired.segments[id_of(vnet)], Wall("kaktus_test")
    services = Services(Server(lambda: desired, Tokens(b"k" * 32)))
    networks = frozenset({IPv4Network("10.9.0.0/24")})
    # Whatever order, however often: the last word counts.
    for wanted in (networks, frozenset({IPv4Network("10.8.0.0/24")}), networks, networks):
        await services.make(segment, wanted, wall)
        assert (services.look(), await wall.look()) == ({segment.id: wanted}, SEAL)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for _ in range(2):
        await services.remove(segment, wall)
        assert (services.look(), await wall.look()) == ({}, "")
    await services.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
