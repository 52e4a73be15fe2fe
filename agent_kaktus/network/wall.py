"""Rules around the metadata services: they speak with machines of this host only, and nobody else speaks as they."""

import hashlib
import json

from agent_kaktus import process
from kowa.reserved import METADATA_ADDRESS

BROKEN = "broken"  # the seal of rules that are not ours
_PORTS, _TAPS = '"km*"', '"kt*"'
# What a machine may open at once and from then on: beyond that, to be turned away would cost the agent its time.
_ASKING = "asking { type ifname; size 4096; flags dynamic; timeout 1m; }"
_TOO_OFTEN = "update @asking { iifname limit rate over 50/second burst 200 packets }"
_RULES = {
    "forward": (
        f"iifname {_PORTS} oifname != {_TAPS} drop",
        f"oifname {_PORTS} iifname != {_TAPS} drop",
        f"iifname {_TAPS} oifname {_PORTS} tcp flags & (syn | ack) == syn {_TOO_OFTEN} drop",
        f"oifname {_TAPS} iifname != {_PORTS} arp saddr ip {METADATA_ADDRESS} drop",
        f"iifname {_TAPS} oifname != {_PORTS} arp daddr ip {METADATA_ADDRESS} drop",
    ),
    "input": (f"iifname {_PORTS} drop",),
    "output": (f"oifname {_PORTS} drop", f"oifname {_TAPS} arp saddr ip {METADATA_ADDRESS} drop"),
}
SEAL = hashlib.sha256(repr((_ASKING, _RULES)).encode()).hexdigest()[:16]


def text(table: str) -> str:
    """One transaction that makes the table anew, whatever there was."""
    lines = [f"add table bridge {table}", f"delete table bridge {table}", f"add table bridge {table}"]
    lines.append(f"add set bridge {table} {_ASKING}")
    for chain, rules in _RULES.items():
        lines.append(f"add chain bridge {table} {chain} {{ type filter hook {chain} priority 0; policy accept; }}")
        lines += [f'add rule bridge {table} {chain} {rule} comment "{SEAL}"' for rule in rules]
    return "\n".join(lines) + "\n"


def seal(listing: str) -> str:
    """Of a table as `nft -j` lists it: ours if it has each rule once and no other."""
    rules = [item["rule"] for item in json.loads(listing)["nftables"] if "rule" in item]
    found = sorted((rule["chain"], rule.get("comment", "")) for rule in rules)
    return SEAL if found == sorted((chain, SEAL) for chain, rules in _RULES.items() for _ in rules) else BROKEN


class Wall:
    """The agent's own table of the bridge family."""

    def __init__(self, table: str) -> None:
        self._table = table

    async def look(self) -> str:
        """Its seal; empty where there is no such table."""
        tables = json.loads(await process.run("nft", "-j", "list", "tables", "bridge"))["nftables"]
        if not any(item.get("table", {}).get("name") == self._table for item in tables):
            return ""
        return seal(await process.run("nft", "-j", "list", "table", "bridge", self._table))

    async def put(self) -> None:
        if await self.look() != SEAL:
            await process.run("nft", "-f", "-", say=text(self._table))

    async def remove(self) -> None:
        if await self.look():
            await process.run("nft", "delete", "table", "bridge", self._table)
