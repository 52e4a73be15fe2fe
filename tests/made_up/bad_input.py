"""Invalid values of nested parts: fields that change a valid balancer, the reason of the refusal, and its message.

As JSON, with names instead of ids in references, so that every client can send them.
"""

from typing import Any, Final

VALID: Final[dict[str, Any]] = {"farm": "north", "name": "web", "address": "2001:db8::1"}
INVALID = "INVALID_ARGUMENT"
HOST = "host-1"
HOSTS = [{"kaktus": f"host-{number}"} for number in range(1, 6)]


def member(**fields: Any) -> dict[str, Any]:
    """Fields of a balancer with a valid member and another one with these fields."""
    return {"members": [{"kaktus": HOST}, {"kaktus": "host-2", **fields}]}


def address(text: str) -> dict[str, Any]:
    """Fields of a balancer with an address."""
    return {"address": text}


def network(text: str) -> dict[str, Any]:
    """Fields of a balancer with a network and without an address."""
    return {"address": None, "network": text}


def host_name(name: str) -> dict[str, Any]:
    """Fields of a balancer whose health check has a host name."""
    return {"health": {"path": "/", "host_name": name}}


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    # case, fields, reason, message
    ("a member without a host", {"members": [{"kaktus": HOST}, {}]}, INVALID, "members[1].kaktus: is required"),
    ("a member's address of a group", member(address="ff02::1"), INVALID, "members[1].address: 'ff02::1' is no IP"),
    ("a member's weight too high", member(weight=101), INVALID, "members[1].weight: is 101, 100 at most"),
    ("a member's group MAC", member(mac="01:00:5e:00:00:01"), INVALID, "members[1].mac: '01:00:5e:00:00:01' is no"),
    ("a host twice", {"members": [{"kaktus": HOST}, {"kaktus": HOST}]}, INVALID, "[1].kaktus: is that of members[0]"),
    ("too many members", {"members": HOSTS}, INVALID, "members: has 5 elements, 4 at most"),
    ("a health check of nothing", {"health": {"protocol": "PROTOCOL_HTTP"}}, INVALID, "health.path: is required"),
    ("a long path", {"health": {"path": "/" * 33}}, INVALID, "health.path: has 33 characters, 32 at most"),
    ("no protocol", {"health": {"path": "/", "protocol": 7}}, INVALID, "health.protocol: 7 is none of its values"),
    ("a protocol not served yet", {"health": {"path": "/", "protocol": "PROTOCOL_UDP"}}, "NOT_SERVED",
     "health.protocol: PROTOCOL_UDP is not served yet; use PROTOCOL_TCP or PROTOCOL_HTTP"),
    ("a label's name", {"labels": {"No_label": "x"}}, INVALID, "labels['No_label']: its name 'No_label' is no DNS"),
    ("a label without a name", {"labels": {"": "x"}}, INVALID, "labels['']: its name '' is no DNS label"),
    ("a label's value", {"labels": {"tier": "x" * 64}}, INVALID, "labels['tier']: has 64 characters, 63 at most"),
    ("too many labels", {"labels": {f"n{n}": "" for n in range(5)}}, INVALID, "labels: has 5 elements, 4 at most"),
    ("a limit without a rate", {"limits": {"a": {}}}, INVALID, "limits['a'].rate: is required"),
    ("a limit's rate too low", {"limits": {"b": {"rate": "1"}}}, INVALID, "limits['b'].rate: is 1, 1024 at least"),
    ("a limit's name", {"limits": {"a\nb": {"rate": "2048"}}}, INVALID, "limits['a\\nb']: its name 'a\\nb' is no name"),
    ("a port by name too high", {"named_ports": {"www": 65536}}, INVALID, "named_ports['www']: is 65536, 65535"),
    ("nowhere", {"address": None}, INVALID, "exposure: one of address, network is required"),
    ("loopback", address("::1"), INVALID, "it is in ::1/128, which a host keeps for itself"),
    ("no address", address("::"), INVALID, "it is in ::/128, which is not for hosts"),
    ("link-local", address("fe80::1"), INVALID, "it is in fe80::/10, which is link-local"),
    ("link-local with a device", address("fe80::1%eth0"), INVALID, "address: 'fe80::1%eth0' is no IP address"),
    ("multicast", address("ff02::fb"), INVALID, "it is in ff00::/8, which is for multicast"),
    ("IPv4 in IPv6", address("::ffff:10.0.0.1"), INVALID, "::ffff:0:0/96, which holds IPv4 addresses: write"),
    ("site-local", address("fec0::1"), INVALID, "fec0::/10, which was site-local and is given up: use fd00::/8"),
    ("IPv6 in capitals", address("2001:DB8::1"), INVALID, "address: write 2001:db8::1 instead of '2001:DB8::1'"),
    ("IPv6 at length", address("2001:db8:0::1"), INVALID, "write 2001:db8::1 instead of '2001:db8:0::1'"),
    ("an IPv4 address with zeros", address("10.0.0.01"), INVALID, "address: '10.0.0.01' is no IP address"),
    ("an address with a length", address("10.0.0.1/24"), INVALID, "address: '10.0.0.1/24' is no IP address"),
    ("a network with host bits", network("2001:db8::1/64"), INVALID, "without host bits; write 2001:db8::/64"),
    ("a network in capitals", network("FD00::/8"), INVALID, "network: 'FD00::/8' is no IP network"),
    ("a network without a length", network("10.0.0.0"), INVALID, "without host bits; write 10.0.0.0/32"),
    ("a network by a mask", network("10.0.0.0/255.0.0.0"), INVALID, "without host bits; write 10.0.0.0/8"),
    ("a network of IPv4 in IPv6", network("::ffff:10.0.0.0/104"), INVALID, "holds IPv4 addresses; write them as"),
    ("a network that is none", network("::/129"), INVALID, "network: '::/129' is no IP network like 10.20.0.0/24"),
    ("port 0", {"ports": ["443", "0"]}, INVALID, "ports[1]: '0' is no port or range of ports of 1 to 65535, such as"),
    ("a port too high", {"ports": ["65536"]}, INVALID, "ports[0]: '65536' is no port"),
    ("a range that runs backwards", {"ports": ["90-80"]}, INVALID, "ports[0]: '90-80' is no port"),
    ("a range of one", {"ports": ["80-80"]}, INVALID, "ports[0]: '80-80' is no port"),
    ("a range without end", {"ports": ["80-"]}, INVALID, "ports[0]: '80-' is no port"),
    ("a port's name", {"ports": ["http"]}, INVALID, "ports[0]: 'http' is no port"),
    ("a port with a sign", {"ports": ["+80"]}, INVALID, "ports[0]: '+80' is no port"),
    ("a host name in capitals", host_name("WWW.example.net"), INVALID, "health.host_name: 'WWW.example.net' is no"),
    ("a host name with a space", host_name("www example"), INVALID, "health.host_name: 'www example' is no host name"),
    ("a host name that ends in a dot", host_name("example.net."), INVALID, "'example.net.' is no host name"),
    ("an address for a host name", host_name("10.0.0.1"), INVALID, "'10.0.0.1' is no host name"),
    ("a host name too long", host_name(".".join(["a" * 63] * 4) + ".net"), INVALID, "is no host name like www.exam"),
    ("what is not served yet", {"standby": "spare"}, "NOT_SERVED", "standby: is not served yet; leave it out"),
]  # fmt: skip

ACCEPTED: list[dict[str, Any]] = [
    {"members": [{"kaktus": HOST, "address": "10.0.0.1", "weight": 100, "mac": "52:54:00:12:34:56"}]},
    {"health": {"path": "/", "protocol": "PROTOCOL_HTTP", "host_name": "www-1.example.net"}},
    {"health": {"path": "/", "host_name": "localhost"}},
    {"labels": {"tier": "", "a-1": "x" * 63}, "limits": {"it's 1": {"rate": "1024"}}, "named_ports": {"www": 80}},
    {"address": "fd00::1"},
    {"address": "64.0.0.1"},
    {"address": None, "network": "::/0"},
    {"address": None, "network": "0.0.0.0/0"},
    {"address": None, "network": "fe80::/10"},
    {"ports": ["1", "443", "8000-8080", "1-65535"]},
]


def balancer(fields: dict[str, Any]) -> dict[str, Any]:
    """A valid balancer with these fields changed; None removes a field."""
    return {name: value for name, value in (VALID | fields).items() if value is not None}
