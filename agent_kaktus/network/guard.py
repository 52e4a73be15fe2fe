"""Rules on a tap: a guest speaks with its own hardware and network address only, or not at all."""

import asyncio
import hashlib
import json
from collections.abc import Iterable

from agent_kaktus import names, process
from agent_kaktus.desired import Card
from agent_kaktus.failures import StepFailed
from agent_kaktus.network.wall import Wall

_RULES = (
    "ether saddr != {mac} drop",
    "ether type {{ 8021q, 8021ad }} drop",
    "udp dport 68 drop",  # what a DHCP server says, from whatever port: clients ask for no other
    "ip saddr {address} accept",
    "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
    "arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {address} }} accept",
)


def rules(card: Card) -> list[str]:
    """What passes from the guest, in nft's words. Built from parsed addresses only; whatever else comes is dropped."""
    return [rule.format(mac=card.mac, address=card.address) for rule in _RULES]


def seal(card: Card, index: int) -> str:
    """Says of a chain which rules it has, and for which device: a tap made anew has the name but not the index."""
    return f"{hashlib.sha256(chr(10).join(rules(card)).encode()).hexdigest()[:16]}/{index}"


def text(table: str, card: Card, index: int, *, anew: bool) -> str:
    """One transaction that makes the chain of a tap: where there is none, or anew, whatever there is."""
    chain = f"netdev {table} {card.tap}"
    hook = f'{{ type filter hook ingress device "{card.tap}" priority -500; policy drop; }}'
    lines = [f"add table netdev {table}"]
    lines += [f"add chain {chain} {hook}", f"delete chain {chain}"] if anew else []
    lines += [f"create chain {chain} {hook}"]
    lines += [f'add rule {chain} {rule} comment "{seal(card, index)}"' for rule in rules(card)]
    return "\n".join(lines) + "\n"


def seals(listing: str) -> dict[str, str]:
    """Tap -> seal, from a table as `nft -j` lists it. A chain with other rules than ours has no seal."""
    found: dict[str, list[str]] = {}
    for item in json.loads(listing)["nftables"]:
        if "chain" in item:
            name = item["chain"]["name"]
            found[name] = found.get(name, []) if item["chain"].get("policy") == "drop" else ["open"]
        elif "rule" in item:
            found.setdefault(item["rule"]["chain"], []).append(item["rule"].get("comment", ""))
    return {tap: _common(comments) for tap, comments in found.items()}


def _common(comments: list[str]) -> str:
    complete = len(comments) == len(_RULES) and len(set(comments)) == 1
    return comments[0] if complete else ""


class Guards:
    """The agent's own table of the netdev family, which goes with its last chain; and the wall beside it."""

    def __init__(self, kaktus: str) -> None:
        self._table = names.guard(kaktus)
        self.wall = Wall(self._table)
        self._changing = asyncio.Lock()

    async def look(self) -> dict[str, str]:
        tables = json.loads(await nft("-j", "list", "tables", "netdev"))["nftables"]
        if not any(item.get("table", {}).get("name") == self._table for item in tables):
            return {}
        return seals(await nft("-j", "list", "table", "netdev", self._table))

    async def put(self, card: Card, index: int) -> None:
        """A chain that is there is made anew, which takes the kernel several times as long as a first one."""
        async with self._changing:
            try:
                await nft("-f", "-", say=text(self._table, card, index, anew=False))
            except StepFailed:
                await nft("-f", "-", say=text(self._table, card, index, anew=True))

    async def remove(self, taps: Iterable[str]) -> None:
        async with self._changing:
            found = await self.look()
            gone = found.keys() & set(taps)
            lines = [f"delete chain netdev {self._table} {tap}" for tap in sorted(gone)]
            if found.keys() == gone:
                lines.append(f"delete table netdev {self._table}")
            if lines and found:
                await nft("-f", "-", say="\n".join(lines) + "\n")


async def nft(*arguments: str, say: str = "") -> str:
    return await process.run("nft", *arguments, say=say)
