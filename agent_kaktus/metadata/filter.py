"""The metadata filter: services speak with instances of this host only, and nobody else speaks as they."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent_kaktus.network import nftables
from kowa.reserved import METADATA_ADDRESS

FOREIGN = "broken"  # in place of a fingerprint, for rules that are not ours
_PORTS, _TAPS = '"km*"', '"kt*"'
# What an instance may open at once and from then on: beyond that, to be turned away would cost the agent its time.
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
FINGERPRINT = nftables.fingerprint(repr((_ASKING, _RULES)))


def script(table: str) -> str:
    """One transaction that makes the table anew, whatever there was."""
    lines = [f"add table bridge {table}", f"delete table bridge {table}", f"add table bridge {table}"]
    lines.append(f"add set bridge {table} {_ASKING}")
    for chain, rules in _RULES.items():
        lines.append(f"add chain bridge {table} {chain} {{ type filter hook {chain} priority 0; policy accept; }}")
        lines += [f'add rule bridge {table} {chain} {rule} comment "{FINGERPRINT}"' for rule in rules]
    return "\n".join(lines) + "\n"


def fingerprint(table: Iterable[Mapping[str, Any]]) -> str:
    """Of what is in our table: our own if it has each rule once and no other."""
    rules = [item["rule"] for item in table if "rule" in item]
    found = sorted((rule["chain"], rule.get("comment", "")) for rule in rules)
    ours = sorted((chain, FINGERPRINT) for chain, rules in _RULES.items() for _ in rules)
    return FINGERPRINT if found == ours else FOREIGN


class MetadataFilter:
    """The agent's own table of the bridge family."""

    def __init__(self, table: str) -> None:
        self._table = table

    async def look(self) -> str:
        """Its fingerprint; empty where there is no such table."""
        table = await nftables.list_table("bridge", self._table)
        return "" if table is None else fingerprint(table)

    async def put(self) -> None:
        if await self.look() != FINGERPRINT:
            await nftables.load(script(self._table))

    async def remove(self) -> None:
        if await self.look():
            await nftables.load(f"delete table bridge {self._table}\n")
