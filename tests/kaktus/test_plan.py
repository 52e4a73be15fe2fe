# ruff: noqa: E501 - a table
"""The agent's plans: each line of the tables is a case, a slice, the state of the host, and the planned steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_kaktus import names
from agent_kaktus.actual import Domain, Image, Link, Power
from agent_kaktus.kinds import KINDS
from kowa import reserved
from kowa.runtime.plan import plan, strangers
from kowa.v2 import instance_pb2
from tests.kaktus.settings_of import settings_of

from .fake_host import FakeHost
from .slices import MIB, Slice, id_of, slice_with_network

CONFIG = settings_of(Path("/pools"), Path("/instances"))
SUM = "0" * 64
BRIDGE_MAC = "06:00:00:00:00:0a"
BRIDGE, TAP, PORT = names.bridge(id_of("vnet")), names.tap(id_of("nic")), names.metadata_port(id_of("vnet"))
RUNNING, STOPPED, SUSPENDED = instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED
GIB = 1024 * MIB


def slice_of(text: str) -> Slice:
    """The slice of a table's first column."""
    slice_ = slice_with_network()
    for phrase in filter(None, (part.strip() for part in text.split(","))):
        _add_object(slice_, *phrase.split())
    return slice_


def _add_object(slice_: Slice, object_: str, *options: str) -> None:
    sizes = [int(option.removesuffix("G")) * GIB for option in options if option.endswith("G")]
    match object_:
        case "gone":
            for name in options:
                _add_object(slice_, name)
            slice_.gone(*options)
        case "debian":
            slice_.template("debian", "debian.qcow2", SUM)
        case "root":
            slice_.volume("root", sizes[0] if sizes else GIB, "debian" if "debian" in options else "")
        case "nic":
            macs = {"metadata": reserved.metadata_mac(id_of("vnet")), "bridge": BRIDGE_MAC}
            address = "10.9.0.1" if "gateway" in options else "10.9.0.2"
            special_macs = [macs[option] for option in options if option in macs]
            slice_.adapter("nic", address, *special_macs)
        case "web":
            power = STOPPED if "off" in options else SUSPENDED if "suspended" in options else RUNNING
            adapters = ("nic",) if id_of("nic") in slice_.objects else ()
            slice_.instance("web", ("root",), adapters, power=power, memory=sizes[0] if sizes else GIB)
            if "again" in options:
                slice_.instance("web", ("root",), adapters, power=power, memory=sizes[0] if sizes else GIB)
        case "nothing":
            slice_.objects.clear()
            slice_.host()
        case "on" if options == ("br0",):
            slice_.vnet(interface="br0")
        case "more":
            slice_.subnet("more", "10.8.0.0/24", "10.8.0.1")
        case "vnet" | "network" | "subnet":
            pass


def host_after(text: str) -> FakeHost:
    """The host of a table's second column: one that applied a slice, then had these events."""
    before, _, events = text.partition(";")
    host = FakeHost(CONFIG)
    if "on br0" in before:
        _apply_event(host, "br0")
    if before.strip() != "-":
        host.converge(KINDS.parse(slice_of(before).objects))
    for event in filter(None, (part.strip() for part in events.split(","))):
        _apply_event(host, event)
    return host


def _apply_event(host: FakeHost, event: str) -> None:
    web, root = id_of("web"), id_of("root")
    match event:
        case "killed":
            host.switch_off(web, by_guest=False)
        case "powered off":
            host.switch_off(web, by_guest=True)
        case "crashing":
            host.switch_off(web, by_guest=False)
            host.power_notes.restarts[web, 1] = (1.0, 2.0, 3.0, 4.0, 5.0)
        case "power-off marked":
            host.domains[web] = replace(host.domains[web], powered_off=False)
            _mark(host, powered_off_at=1)
        case "web removed":
            host.switch_off(web, by_guest=False)
            del host.domains[web], host.seed_fingerprints[web]
        case "file lost":
            del host.images[root]
        case "pool lost":
            host.pools.clear()
            host.images.clear()
        case "panicked":
            host.domains[web] = replace(host.domains[web], power=Power.PANICKED)
        case "of an older agent":
            _mark(host, version=1)
        case "filters lost":
            host.filters.clear()
        case "agent restarted":
            host.restart_agent()
        case "metadata filter lost":
            host.metadata_fingerprint = ""
        case "metadata filter changed":
            host.metadata_fingerprint = "broken"
        case "port lost":
            del host.links[PORT]
        case "port unplugged":
            host.plugs[PORT] = ""
        case "port lost and unplugged":
            del host.links[PORT], host.plugs[PORT]
        case "bridge down":
            host.links[BRIDGE] = replace(host.links[BRIDGE], is_up=False)
        case "bridge":
            host.links[BRIDGE] = Link(BRIDGE, 7, is_bridge=True, mac=BRIDGE_MAC)
        case "br0":
            host.links["br0"] = Link("br0", 7, is_bridge=True, mac=BRIDGE_MAC)
        case "br0 is not a bridge":
            host.links["br0"] = Link("br0", 7)
        case "stray port":
            host.links["km0123456789ab"] = Link("km0123456789ab", 8)
        case "stopping":
            host.power_notes.stopping[web] = host.now
            _mark(host, stop_requested_at=2)
        case "stopping unmarked":
            host.power_notes.stopping[web] = host.now
        case "stopped once":
            _mark(host, stop_requested_at=1)
        case "asleep":
            host.domains[web] = replace(host.domains[web], power=Power.ASLEEP)
        case "started since":
            _mark(host, ran_at=2)
        case "stopping too long":
            host.power_notes.stopping[web] = host.now - CONFIG.shutdown_limit
        case "stranger":
            host.foreign_domains["x"] = Domain("x", "stranger", disks=frozenset({"/pools/x"}))
        case "impostor":
            host.foreign_domains[web] = Domain(web, "impostor")
        case "stray file":
            stray = id_of("stray")
            host.images[stray] = Image(stray, id_of("pool"), "qcow2", GIB)
        case "root damaged":
            host.images[root] = replace(host.images[root], backing="", broken="its file is damaged")
        case "root rebased":
            host.images[root] = replace(host.images[root], backing=f"/srv/pools/{host.images[root].backing}")
        case "debian encrypted":
            debian = id_of("debian")
            host.images[debian] = replace(host.images[debian], broken="its file is an encrypted qcow2 image (LUKS)")
        case "root moved" | "debian moved":
            moved = id_of(event.split()[0])
            host.images[moved] = replace(host.images[moved], pool="OTHER")
        case "importing":
            host.importing[id_of("debian")] = 7
        case "stray bridge":
            host.links["kb0123456789ab"] = Link("kb0123456789ab", 7, is_bridge=True)
        case "smaller":
            host.images[root] = Image(root, id_of("pool"), "qcow2", GIB // 2)


def _mark(host: FakeHost, **times: Any) -> None:
    before = host.domains[id_of("web")]
    assert before.mark is not None
    host.domains[before.id] = replace(before, mark=replace(before.mark, **times))


# Slice: objects, separated by commas, each with its options; the network is always there ("network": nothing else).
# web: "off" and "suspended" are its power; "again" puts it a second time, which makes its generation 2.
# Host: the slice that was applied before ("-": none), then events. "stopping": shutdown was requested, and is marked;
# "stopping unmarked": that step failed, so nothing is marked; "stopping too long": the shutdown timeout is over;
# "stopped once": the mark has a shutdown of generation 1; "started since": the mark has a start of generation 2.
CASES = """
slice                     | host                                           | planned
root, web                 | -                                              | pool: create pool pool; root: waits: storage pool pool; web: waits: volume root
root debian, debian       | network                                        | debian: import debian; root: waits: template debian
root debian, debian       | debian                                         | root: create volume root
root, web                 | root                                           | web: seed web, define web, start web, mark web running, resume web
root, web                 | root, web                                      | -
root, nic, web            | root                                           | vnet: create bridge vnet; web: waits: vnet vnet: no bridge BRIDGE
root, nic, web            | root, nic, web off                             | web: start web, mark web running, filter taps of web, resume web
root, web off             | root                                           | web: seed web, define web
root, web suspended       | root                                           | web: seed web, define web, start web, mark web running
root, web suspended again | root, web                                      | web: suspend web, mark web running
root, web again           | root, web suspended                            | web: resume web, mark web running
root, web 8G              | root, web 4G                                   | web: redefine web
root, web 8G again        | root, web 4G off                               | web: redefine web, start web, mark web running, resume web
root, web off again       | root, web                                      | web: shutdown web, mark web stopping
root, web off again       | root, web; stopping                            | web: working: it is shutting down
root, web off again       | root, web; stopping too long                   | web: cut power web
root, web off again       | root, web; stopping unmarked                   | web: shutdown web, mark web stopping
root, web 8G off again    | root, web 4G                                   | web: shutdown web, mark web stopping
root, web off again       | root, web suspended                            | web: resume web
root, web off again       | root, web suspended; stopping unmarked         | web: resume web
root, web off again       | root, web; asleep                              | web: cut power web
root, web                 | root, web; asleep                              | web: resume web
root, web again           | root, web; stopped once, started since, powered off | web: start web, mark web running, resume web
root, web again           | root, web; stopped once, started since, killed | web: start web, mark web running, resume web
root, web again           | root, web; stopped once, started since         | -
root, nic, web, gone root | root, nic, web; filters lost                   | root: waits: domain kowa-WEB, whose disk it is; web: filter taps of web
nic, web                  | root, nic, web; filters lost                   | web: filter taps of web; stranger file POOL/ROOT.qcow2
nic, web                  | root, nic, web                                 | web: waits: volume ROOT; stranger file POOL/ROOT.qcow2
root, nic, web, gone nic  | root, nic, web; filters lost                   | vnet: remove metadata from vnet; nic: waits: domain kowa-WEB, whose adapter it is; web: filter taps of web
root, nic, web            | root, nic, web; filters lost, file lost        | root: fails: its file /pools/POOL/ROOT.qcow2 is missing and never made anew; restore it or delete the volume; web: filter taps of web
root, web                 | root, web; killed                              | web: start web again, resume web
root, web                 | root, web; killed, agent restarted             | web: start web again, resume web
root, web                 | root, web; crashing                            | web: fails: it stopped by itself 5 times within 10 minutes; see its console, then change or start it
root, web again           | root, web; crashing                            | web: start web, mark web running, resume web
root, web                 | root, web; powered off                         | web: mark web powered off
root, web                 | root, web; powered off, power-off marked       | web: GuestPoweredOff
root, web off again       | root, web; powered off, power-off marked       | web: GuestPoweredOff
root, web again           | root, web; powered off, power-off marked       | web: start web, mark web running, resume web
root, web again           | root, web; powered off                         | web: start web, mark web running, resume web
root, nic, web            | root, nic, web; filters lost                   | web: filter taps of web
root, web                 | root, web; panicked                            | web: cut power web
root, web off             | root, web; panicked                            | web: cut power web
root, web suspended       | root, web suspended; panicked                  | web: cut power web
gone web, root            | root, web; panicked                            | web: cut power web, undefine web, remove seed web
root, web                 | root, web; of an older agent                   | web: redefine web
root, web off             | root, web off; of an older agent               | web: redefine web
root, web 2G              | root, web; of an older agent                   | web: redefine web
root, web                 | root; impostor                                 | web: waits: domain impostor, which has its id and does not bear our mark; stranger domain impostor
root, web                 | root, web; stranger                            | -; stranger domain stranger
web                       | network                                        | web: waits: volume ROOT
root, web                 | root, web; file lost                           | root: fails: its file /pools/POOL/ROOT.qcow2 is missing and never made anew; restore it or delete the volume; web: waits: volume root, which failed: its file /pools/POOL/ROOT.qcow2 is missing and never made anew; restore it or delete the volume
root                      | root; pool lost                                | pool: fails: its directory /pools/POOL is missing; mount or restore it; root: waits: storage pool pool
root 2G                   | root                                           | root: grow volume root
root 2G, web              | root, web                                      | root: grow volume root live
root 1G                   | root 2G                                        | root: fails: it has 2 GiB and never shrinks to 1 GiB
gone web, root            | root, web                                      | web: cut power web, undefine web, remove seed web
gone web, root            | root, web off                                  | web: undefine web, remove seed web
gone web, root            | root                                           | web: gone
gone web root             | root, web                                      | root: waits: domain kowa-WEB, whose disk it is; web: cut power web, undefine web, remove seed web
gone root                 | root                                           | root: remove volume root
gone root                 | root; file lost                                | root: remove volume root
gone root                 | root; pool lost                                | pool: fails: its directory /pools/POOL is missing; mount or restore it; root: waits: storage pool POOL, which is missing
gone root                 | network                                        | root: gone
root debian, debian       | debian; debian encrypted                       | debian: fails: its file is an encrypted qcow2 image (LUKS); root: fails: template debian: its file is an encrypted qcow2 image (LUKS)
gone debian               | debian; debian encrypted                       | debian: remove template debian
gone debian, root debian  | debian, root debian                            | debian: waits: 1 volumes that stand on it: ROOT
gone debian, root debian  | debian, root debian; root rebased              | debian: waits: 1 volumes that stand on it: ROOT
gone debian, root debian  | debian, root debian; root damaged              | debian: waits: file POOL/ROOT.qcow2, which may stand on it: its file is damaged; root: fails: its file is damaged
gone debian, gone root    | debian, root; root damaged                     | debian: waits: file POOL/ROOT.qcow2, which may stand on it: its file is damaged; root: remove volume root
gone debian               | debian; debian moved                           | debian: fails: its file lies in pool OTHER
gone root                 | root; root moved                               | root: fails: its file lies in pool OTHER
debian                    | debian; debian moved                           | debian: fails: its file lies in pool OTHER
gone debian               | debian                                         | debian: remove template debian
gone debian pool          | network; importing                             | pool: waits: 1 imports into it; debian: stop importing debian
root, nic, web, gone vnet | root, nic, web                                 | vnet: waits: 1 devices on its bridge BRIDGE; web: waits: vnet VNET, which is being deleted
gone nic, root, gone web  | root, nic, web                                 | vnet: remove metadata from vnet; nic: waits: domain kowa-WEB, whose adapter it is; web: cut power web, undefine web, remove seed web
gone nic                  | root, nic, web; web removed                    | vnet: remove metadata from vnet; nic: remove filter of TAP; stranger file POOL/ROOT.qcow2
nothing                   | root, nic, web; web removed                    | host: remove filter of TAP; stranger bridge BRIDGE; stranger file POOL/ROOT.qcow2; stranger metadata port PORT; stranger pool POOL
nothing                   | root, web                                      | -; stranger domain kowa-WEB; stranger file POOL/ROOT.qcow2; stranger pool POOL
root                      | root; stray file, stray bridge                 | -; stranger bridge kb0123456789ab; stranger file POOL/STRAY.qcow2
"""

METADATA_CASES = """
slice                                 | host                                         | planned
root, nic metadata, web               | root; bridge                                 | vnet: serve metadata on vnet; web: waits: adapter nic: its hardware address 02:4d:51:63:da:f4 is the metadata service's of vnet vnet; replace it by another adapter
root, nic bridge, web                 | root; bridge                                 | vnet: serve metadata on vnet; web: waits: adapter nic: its hardware address 06:00:00:00:00:0a is that of BRIDGE on this host; replace it by another adapter
root, nic bridge, web, on br0         | root; br0                                    | vnet: serve metadata on vnet; web: waits: adapter nic: its hardware address 06:00:00:00:00:0a is that of br0 on this host; replace it by another adapter
root, nic gateway, web                | root; bridge                                 | vnet: serve metadata on vnet; web: waits: adapter nic: its address 10.9.0.1 is kept for the vnet; replace it by another adapter
root, nic, web                        | root, nic; bridge                            | vnet: serve metadata on vnet; web: seed web, define web, start web, mark web running, filter taps of web, resume web
root, nic, web                        | root, nic, web                               | -
root, nic, web off again              | root, nic, web                               | web: shutdown web, mark web stopping
root, nic, web                        | root, nic, web; agent restarted              | vnet: serve metadata on vnet
root, nic, web                        | root, nic, web; metadata filter lost         | vnet: serve metadata on vnet
root, nic, web                        | root, nic, web; metadata filter changed      | vnet: serve metadata on vnet
root, nic, web                        | root, nic, web; port lost                    | vnet: serve metadata on vnet
root, nic, web                        | root, nic, web; port unplugged               | vnet: serve metadata on vnet
root, nic, web, more                  | root, nic, web                               | vnet: serve metadata on vnet
root, nic, web, gone more             | root, nic, web, more                         | vnet: serve metadata on vnet; more: gone
root, nic, gone web                   | root, nic, web; web removed                  | vnet: remove metadata from vnet; web: gone
root, nic, gone web                   | root, nic, web; web removed, bridge down     | vnet: set bridge vnet up, remove metadata from vnet; web: gone
root, nic, gone web                   | root, nic, web; web removed, agent restarted | vnet: remove metadata from vnet; web: gone
root, nic, gone web                   | root, nic, web; web removed, agent restarted, port lost and unplugged | host: remove metadata filter; web: gone
gone root nic web subnet vnet         | root, nic, web; web removed                  | root: remove volume root; vnet: remove metadata from vnet, remove bridge vnet; subnet: gone; nic: remove filter of TAP; web: gone
root, nic, web, gone vnet             | root, nic, web; agent restarted              | vnet: waits: 1 devices on its bridge BRIDGE; web: waits: vnet VNET, which is being deleted
root, nic, web, on br0                | root                                         | web: waits: vnet vnet: no bridge br0
root, nic, web, on br0                | root; br0 is not a bridge                    | web: waits: vnet vnet: no bridge br0
root, nic, web, on br0                | root; br0                                    | vnet: serve metadata on vnet; web: seed web, define web, start web, mark web running, filter taps of web, resume web
root, nic, web, on br0                | root, nic, web, on br0; port lost            | vnet: serve metadata on vnet
root, on br0                          | root, on br0                                 | -
gone root nic web subnet vnet, on br0 | root, nic, web, on br0; web removed          | root: remove volume root; vnet: remove metadata from vnet; subnet: gone; nic: remove filter of TAP; web: gone
root                                  | root; stray port                             | -; stranger metadata port km0123456789ab
"""


def _cases(table: str) -> list[tuple[str, str, str]]:
    rows = [line.split("|") for line in table.strip().splitlines()[1:]]
    return [(cells[0].strip(), cells[1].strip(), cells[2].strip()) for cells in rows]


def _planned(host: FakeHost, slice_: Slice) -> str:
    """The planned steps and strangers, with the names of the tables; objects without steps are left out."""
    names_by_id = {
        id_of(name): name
        for name in ("pool", "debian", "root", "vnet", "subnet", "more", "nic", "web", "host", "region")
    }
    view = host.view(KINDS.parse(slice_.objects))
    lines = [f"{names_by_id[id_]}: {verdict}" for id_, verdict in plan(view).items() if str(verdict) not in ("-", "")]
    lines = lines or ["-"]
    text = "; ".join([*lines, *(f"stranger {stranger}" for stranger in strangers(view))])
    for name in ("pool", "root", "web", "stray", "vnet"):
        text = text.replace(id_of(name), name.upper())
    return text.replace(BRIDGE, "BRIDGE").replace(TAP, "TAP").replace(PORT, "PORT")


@pytest.mark.parametrize(("wanted", "host", "planned"), [*_cases(CASES), *_cases(METADATA_CASES)])
def test_planned_steps(wanted: str, host: str, planned: str) -> None:
    assert _planned(host_after(host), slice_of(wanted)) == planned
