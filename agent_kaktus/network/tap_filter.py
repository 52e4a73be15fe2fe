"""Anti-spoofing on taps: a guest speaks with its own hardware and network address only, or not at all."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from agent_kaktus.errors import StepFailed
from agent_kaktus.network import nftables

_RULES = (
    "ether saddr != {mac} drop",
    "ether type {{ 8021q, 8021ad }} drop",
    "udp dport 68 drop",  # what a DHCP server says, from whatever port: clients ask for no other
    "ip saddr {address} accept",
    "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
    "arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {address} }} accept",
)


class Filtered(Protocol):
    """An adapter, as far as its filter depends on it."""

    @property
    def tap(self) -> str: ...

    @property
    def mac(self) -> str: ...

    @property
    def address(self) -> object: ...


def rules(adapter: Filtered) -> list[str]:
    """What passes from the guest, in nft's words. Built from parsed addresses only; whatever else comes is dropped."""
    return [rule.format(mac=adapter.mac, address=adapter.address) for rule in _RULES]


def fingerprint(adapter: Filtered, index: int) -> str:
    """Says of a chain which rules it has, and for which device: a tap made anew has the name but not the index."""
    return f"{nftables.fingerprint(chr(10).join(rules(adapter)))}/{index}"


def script(table: str, adapter: Filtered, index: int, *, replace: bool) -> str:
    """One transaction that makes the chain of a tap: where there is none, or in place of whatever there is."""
    chain = f"netdev {table} {adapter.tap}"
    hook = f'{{ type filter hook ingress device "{adapter.tap}" priority -500; policy drop; }}'
    lines = [f"add table netdev {table}"]
    lines += [f"add chain {chain} {hook}", f"delete chain {chain}"] if replace else []
    lines += [f"create chain {chain} {hook}"]
    lines += [f'add rule {chain} {rule} comment "{fingerprint(adapter, index)}"' for rule in rules(adapter)]
    return "\n".join(lines) + "\n"


def fingerprints(table: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Tap -> fingerprint, from what is in our table; empty for a chain with other rules than ours."""
    found: dict[str, list[str]] = {}
    for item in table:
        if "chain" in item:
            name = item["chain"]["name"]
            found[name] = found.get(name, []) if item["chain"].get("policy") == "drop" else ["open"]
        elif "rule" in item:
            found.setdefault(item["rule"]["chain"], []).append(item["rule"].get("comment", ""))
    return {tap: _common(comments) for tap, comments in found.items()}


class TapFilters:
    """The agent's own table of the netdev family, with a chain a tap; it goes with its last chain."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._changing = asyncio.Lock()

    async def look(self) -> dict[str, str]:
        """Tap -> fingerprint."""
        return fingerprints(await nftables.list_table("netdev", self._table) or ())

    async def put(self, adapter: Filtered, index: int) -> None:
        """A chain that is there is made anew, which takes the kernel several times as long as a first one."""
        async with self._changing:
            try:
                await nftables.load(script(self._table, adapter, index, replace=False))
            except StepFailed:
                await nftables.load(script(self._table, adapter, index, replace=True))

    async def remove(self, taps: Iterable[str]) -> None:
        """Those that are there."""
        async with self._changing:
            found = await self.look()
            gone = found.keys() & set(taps)
            lines = [f"delete chain netdev {self._table} {tap}" for tap in sorted(gone)]
            if found.keys() == gone:
                lines.append(f"delete table netdev {self._table}")
            if lines and found:
                await nftables.load("\n".join(lines) + "\n")


def _common(comments: list[str]) -> str:
    complete = len(comments) == len(_RULES) and len(set(comments)) == 1
    return comments[0] if complete else ""
