"""The exact nftables rules of a tap, and their fingerprint."""

from typing import Any

from agent_kaktus.kinds import KINDS
from agent_kaktus.network import nftables
from agent_kaktus.network.adapter import Adapter

from .slices import id_of, slice_with_network

TAP = "kt" + id_of("nic").replace("-", "")[:12]


def web_adapter() -> Adapter:
    slice_ = slice_with_network()
    slice_.adapter("nic", "10.9.0.2")
    return KINDS.parse(slice_.objects).of(Adapter)[id_of("nic")]


def test_tap_script() -> None:
    hook = f'{{ type filter hook ingress device "{TAP}" priority -500; policy drop; }}'
    fingerprint = nftables.tap_fingerprint(web_adapter(), 7)
    first = [
        "add table netdev kaktus_x",
        f"create chain netdev kaktus_x {TAP} {hook}",
        f'add rule netdev kaktus_x {TAP} ether saddr != 02:00:00:00:00:01 drop comment "{fingerprint}"',
        f'add rule netdev kaktus_x {TAP} ether type {{ 8021q, 8021ad }} drop comment "{fingerprint}"',
        f'add rule netdev kaktus_x {TAP} udp dport 68 drop comment "{fingerprint}"',
        f'add rule netdev kaktus_x {TAP} ip saddr 10.9.0.2 accept comment "{fingerprint}"',
        f"add rule netdev kaktus_x {TAP} ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"
        f' comment "{fingerprint}"',
        f"add rule netdev kaktus_x {TAP} arp saddr ether 02:00:00:00:00:01 arp saddr ip {{ 0.0.0.0, 10.9.0.2 }} accept"
        f' comment "{fingerprint}"',
    ]
    assert nftables.tap_script("kaktus_x", web_adapter(), 7, replace=False).splitlines() == first
    assert nftables.tap_script("kaktus_x", web_adapter(), 7, replace=True).splitlines() == [
        first[0],
        f"add chain netdev kaktus_x {TAP} {hook}",
        f"delete chain netdev kaktus_x {TAP}",
        *first[1:],
    ]


def test_a_recreated_tap_has_a_new_fingerprint() -> None:
    assert nftables.tap_fingerprint(web_adapter(), 7) != nftables.tap_fingerprint(web_adapter(), 8)


def listing(comments: list[str], policy: str = "drop") -> list[dict[str, Any]]:
    rules = [{"rule": {"chain": TAP, "comment": comment}} for comment in comments]
    return [{"chain": {"name": TAP, "policy": policy}}, *rules]


def test_only_a_complete_chain_has_a_fingerprint() -> None:
    fingerprint, count = nftables.tap_fingerprint(web_adapter(), 7), len(nftables.tap_rules(web_adapter()))
    assert nftables.tap_fingerprints(listing([fingerprint] * count)) == {TAP: fingerprint}
    for incomplete in (
        listing([fingerprint] * (count - 1)),
        listing([fingerprint] * (count + 1)),
        listing([*[fingerprint] * (count - 1), "x"]),
        listing([fingerprint] * count, "accept"),
    ):
        assert nftables.tap_fingerprints(incomplete) == {TAP: ""}
    assert nftables.tap_fingerprints(listing([])) == {TAP: ""}
