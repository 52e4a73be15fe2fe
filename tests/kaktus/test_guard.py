"""What passes from a guest, to the letter; and how its rules are known again."""

import json

from agent_kaktus.desired import Card
from agent_kaktus.network import guard
from agent_kaktus.parse import parse

from .slices import id_of, small_house

TAP = "kt" + id_of("card").replace("-", "")[:12]


def card() -> Card:
    slice_ = small_house()
    slice_.adapter("card", "10.9.0.2")
    return parse(slice_.objects).cards[id_of("card")]


def test_the_whole_transaction() -> None:
    hook = f'{{ type filter hook ingress device "{TAP}" priority -500; policy drop; }}'
    seal = guard.seal(card(), 7)
    first = [
        "add table netdev kaktus_x",
        f"create chain netdev kaktus_x {TAP} {hook}",
        f'add rule netdev kaktus_x {TAP} ether saddr != 02:00:00:00:00:01 drop comment "{seal}"',
        f'add rule netdev kaktus_x {TAP} ether type {{ 8021q, 8021ad }} drop comment "{seal}"',
        f'add rule netdev kaktus_x {TAP} udp dport 68 drop comment "{seal}"',
        f'add rule netdev kaktus_x {TAP} ip saddr 10.9.0.2 accept comment "{seal}"',
        f"add rule netdev kaktus_x {TAP} ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"
        f' comment "{seal}"',
        f"add rule netdev kaktus_x {TAP} arp saddr ether 02:00:00:00:00:01 arp saddr ip {{ 0.0.0.0, 10.9.0.2 }} accept"
        f' comment "{seal}"',
    ]
    assert guard.text("kaktus_x", card(), 7, anew=False).splitlines() == first
    assert guard.text("kaktus_x", card(), 7, anew=True).splitlines() == [
        first[0],
        f"add chain netdev kaktus_x {TAP} {hook}",
        f"delete chain netdev kaktus_x {TAP}",
        *first[1:],
    ]


def test_a_tap_made_anew_is_not_guarded_yet() -> None:
    assert guard.seal(card(), 7) != guard.seal(card(), 8)


def listing(comments: list[str], policy: str = "drop") -> str:
    rules = [{"rule": {"chain": TAP, "comment": comment}} for comment in comments]
    return json.dumps({"nftables": [{"chain": {"name": TAP, "policy": policy}}, *rules]})


def test_only_a_whole_chain_bears_a_seal() -> None:
    seal, count = guard.seal(card(), 7), len(guard.rules(card()))
    assert guard.seals(listing([seal] * count)) == {TAP: seal}
    for spoilt in (
        listing([seal] * (count - 1)),
        listing([seal] * (count + 1)),
        listing([*[seal] * (count - 1), "x"]),
        listing([seal] * count, "accept"),
    ):
        assert guard.seals(spoilt) == {TAP: ""}
    assert guard.seals(listing([])) == {TAP: ""}
