"""Packet filters: the rules of taps and of metadata services, each kind in an nftables table of the agent's own.

The comment of each rule is a fingerprint of all rules of its kind, by which existing rules are recognised.
"""

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from agent_kaktus import process
from kowa.reserved import METADATA_ADDRESS
from kowa.runtime.errors import StepFailed

if TYPE_CHECKING:
    from agent_kaktus.network.adapter import Adapter

# Anti-spoofing on a tap: a guest can send with its own hardware and network address only. All else is dropped.
_TAP_RULES = (
    "ether saddr != {mac} drop",
    "ether type {{ 8021q, 8021ad }} drop",
    "udp dport 68 drop",  # responses of a DHCP server, from any port
    "ip saddr {address} accept",
    "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
    "arp saddr ether {mac} arp saddr ip {{ 0.0.0.0, {address} }} accept",
)
_METADATA_PORTS, _TAPS = '"km*"', '"kt*"'  # as names.metadata_port and names.tap name them
# The kernel limits how fast an instance opens connections, since refusing them in the agent would cost time.
_RATES = "asking { type ifname; size 4096; flags dynamic; timeout 1m; }"  # another name would replace the rules in use
_EXCESS = "update @asking { iifname limit rate over 50/second burst 200 packets }"
# Metadata services exchange packets with instances of this host only, and no other device can use their address.
_METADATA_RULES = {
    "forward": (
        f"iifname {_METADATA_PORTS} oifname != {_TAPS} drop",
        f"oifname {_METADATA_PORTS} iifname != {_TAPS} drop",
        f"iifname {_TAPS} oifname {_METADATA_PORTS} tcp flags & (syn | ack) == syn {_EXCESS} drop",
        f"oifname {_TAPS} iifname != {_METADATA_PORTS} arp saddr ip {METADATA_ADDRESS} drop",
        f"iifname {_TAPS} oifname != {_METADATA_PORTS} arp daddr ip {METADATA_ADDRESS} drop",
    ),
    "input": (f"iifname {_METADATA_PORTS} drop",),
    "output": (f"oifname {_METADATA_PORTS} drop", f"oifname {_TAPS} arp saddr ip {METADATA_ADDRESS} drop"),
}


def _fingerprint(rules: str) -> str:
    return hashlib.sha256(rules.encode()).hexdigest()[:16]


METADATA_FINGERPRINT = _fingerprint(repr((_RATES, _METADATA_RULES)))


def tap_rules(adapter: "Adapter") -> list[str]:
    """The rules on a tap, built from parsed addresses only."""
    return [rule.format(mac=adapter.mac, address=adapter.address) for rule in _TAP_RULES]


def tap_fingerprint(adapter: "Adapter", index: int) -> str:
    """The fingerprint of a tap's rules, with its index: a recreated tap has the same name and another index."""
    return f"{_fingerprint(chr(10).join(tap_rules(adapter)))}/{index}"


def tap_script(table: str, adapter: "Adapter", index: int, *, replace: bool) -> str:
    """A transaction that creates the chain of a tap. Fails if there is one, unless it is to be replaced."""
    chain = f"netdev {table} {adapter.tap}"
    hook = f'{{ type filter hook ingress device "{adapter.tap}" priority -500; policy drop; }}'
    lines = [f"add table netdev {table}"]
    lines += [f"add chain {chain} {hook}", f"delete chain {chain}"] if replace else []
    lines += [f"create chain {chain} {hook}"]
    lines += [f'add rule {chain} {rule} comment "{tap_fingerprint(adapter, index)}"' for rule in tap_rules(adapter)]
    return "\n".join(lines) + "\n"


def tap_fingerprints(listing: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Tap -> fingerprint of its chain in a table's listing; empty for a chain with other rules than ours."""
    policies: dict[str, str] = {}
    comments: dict[str, list[str]] = defaultdict(list)
    for item in listing:
        if chain := item.get("chain"):
            policies[chain["name"]] = chain.get("policy", "")
        elif rule := item.get("rule"):
            comments[rule["chain"]].append(rule.get("comment", ""))
    return {
        tap: found[0] if policy == "drop" and len(found) == len(_TAP_RULES) and len(set(found)) == 1 else ""
        for tap, policy in policies.items()
        for found in [comments[tap]]
    }


def metadata_script(table: str) -> str:
    """A transaction that replaces the table of metadata services, or creates it."""
    lines = [f"add table bridge {table}", f"delete table bridge {table}", f"add table bridge {table}"]
    lines.append(f"add set bridge {table} {_RATES}")
    for chain, rules in _METADATA_RULES.items():
        lines.append(f"add chain bridge {table} {chain} {{ type filter hook {chain} priority 0; policy accept; }}")
        lines += [f'add rule bridge {table} {chain} {rule} comment "{METADATA_FINGERPRINT}"' for rule in rules]
    return "\n".join(lines) + "\n"


def metadata_fingerprint(listing: Iterable[Mapping[str, Any]]) -> str:
    """The fingerprint of a table's listing: METADATA_FINGERPRINT if it has each rule once and no other."""
    rules = [item["rule"] for item in listing if "rule" in item]
    found = sorted((rule["chain"], rule.get("comment", "")) for rule in rules)
    ours = sorted((chain, METADATA_FINGERPRINT) for chain, rules in _METADATA_RULES.items() for _ in rules)
    return METADATA_FINGERPRINT if found == ours else "broken"


class TapFilters:
    """The agent's table of the netdev family, with a chain for each tap. It is removed with its last chain."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._lock = asyncio.Lock()

    async def observe(self) -> dict[str, str]:
        """Tap -> fingerprint."""
        return tap_fingerprints(await _list_table("netdev", self._table) or ())

    async def put(self, adapter: "Adapter", index: int) -> None:
        """Creates a tap's chain, or replaces it, which takes the kernel several times as long."""
        async with self._lock:
            try:
                await _load(tap_script(self._table, adapter, index, replace=False))
            except StepFailed:
                await _load(tap_script(self._table, adapter, index, replace=True))

    async def remove(self, taps: Iterable[str]) -> None:
        """Removes the chains of taps; taps without a chain are ignored."""
        async with self._lock:
            found = await self.observe()
            gone = found.keys() & set(taps)
            lines = [f"delete chain netdev {self._table} {tap}" for tap in sorted(gone)]
            if found.keys() == gone:
                lines.append(f"delete table netdev {self._table}")
            if lines and found:
                await _load("\n".join(lines) + "\n")


class MetadataFilter:
    """The agent's table of the bridge family."""

    def __init__(self, table: str) -> None:
        self._table = table

    async def observe(self) -> str:
        """The table's fingerprint; empty if there is no such table."""
        listing = await _list_table("bridge", self._table)
        return "" if listing is None else metadata_fingerprint(listing)

    async def put(self) -> None:
        if await self.observe() != METADATA_FINGERPRINT:
            await _load(metadata_script(self._table))

    async def remove(self) -> None:
        if await self.observe():
            await _load(f"delete table bridge {self._table}\n")


async def _load(script: str) -> None:
    await process.run("nft", "-f", "-", stdin_text=script)


async def _list_table(family: str, name: str) -> list[dict[str, Any]] | None:
    """The chains, rules and sets in a table; None if there is no such table."""
    tables = await _list("tables", family)
    exists = any(item.get("table", {}).get("name") == name for item in tables)
    return await _list("table", family, name) if exists else None


async def _list(*arguments: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(await process.run("nft", "-j", "list", *arguments))["nftables"]
    return items
