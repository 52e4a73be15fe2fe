# ruff: noqa: E501 - a table
"""What the agent does about what it finds, as text: a line is a promise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_kaktus import names
from agent_kaktus.actual import Domain, Image, Link, Power
from agent_kaktus.parse import parse
from agent_kaktus.site import Site
from kowa import reserved
from kowa.v2 import instance_pb2

from .model import Host
from .slices import MIB, Slice, id_of, small_house

SITE = Site(pools=Path("/pools"), machines=Path("/machines"))
SUM = "0" * 64
BRIDGE_MAC = "06:00:00:00:00:0a"
BRIDGE, TAP, PORT = names.bridge(id_of("vnet")), names.tap(id_of("card")), names.port(id_of("vnet"))
RUNNING, STOPPED, SUSPENDED = instance_pb2.POWER_RUNNING, instance_pb2.POWER_STOPPED, instance_pb2.POWER_SUSPENDED
GIB = 1024 * MIB


def asked(words: str) -> Slice:
    """A slice in a few words; commas between objects."""
    slice_ = small_house()
    for phrase in filter(None, (part.strip() for part in words.split(","))):
        _ask(slice_, *phrase.split())
    return slice_


def _ask(slice_: Slice, what: str, *how: str) -> None:
    sizes = [int(word.removesuffix("G")) * GIB for word in how if word.endswith("G")]
    match what:
        case "gone":
            for name in how:
                _ask(slice_, name)
            slice_.gone(*how)
        case "debian":
            slice_.template("debian", "debian.qcow2", SUM)
        case "root":
            slice_.volume("root", sizes[0] if sizes else GIB, "debian" if "debian" in how else "")
        case "card":
            macs = {"metadata": reserved.metadata_mac(id_of("vnet")), "bridge": BRIDGE_MAC}
            address = "10.9.0.1" if "gateway" in how else "10.9.0.2"
            slice_.adapter("card", address, next((macs[word] for word in how if word in macs), "02:00:00:00:00:01"))
        case "web":
            power = STOPPED if "off" in how else SUSPENDED if "held" in how else RUNNING
            cards = ("card",) if id_of("card") in slice_.objects else ()
            slice_.instance("web", ("root",), cards, power=power, memory=sizes[0] if sizes else GIB)
            if "again" in how:
                slice_.instance("web", ("root",), cards, power=power, memory=sizes[0] if sizes else GIB)
        case "nothing":
            slice_.objects.clear()
            slice_.host()
        case "on" if how == ("br0",):
            slice_.vnet(interface="br0")
        case "more":
            slice_.subnet("more", "10.8.0.0/24", "10.8.0.1")
        case "vnet" | "house" | "subnet":
            pass


def found(words: str) -> Host:
    """A host on which that was asked before, and what has happened to it since."""
    before, _, events = words.partition(";")
    host = Host(SITE)
    if "on br0" in before:
        _happen(host, "br0")
    if before.strip() != "-":
        host.converge(parse(asked(before).objects))
    for event in filter(None, (part.strip() for part in events.split(","))):
        _happen(host, event)
    return host


def _happen(host: Host, event: str) -> None:
    web, root = id_of("web"), id_of("root")
    match event:
        case "killed":
            host.switch_off(web, left=False)
        case "left":
            host.switch_off(web, left=True)
        case "crashing":
            host.switch_off(web, left=False)
            host.memory.restarts[web, 1] = (1.0, 2.0, 3.0, 4.0, 5.0)
        case "noted":
            host.domains[web] = replace(host.domains[web], left=False)
            _remark(host, rests=1)
        case "web removed":
            host.switch_off(web, left=False)
            del host.domains[web], host.seeds[web]
        case "file lost":
            del host.images[root]
        case "pool lost":
            host.pools.clear()
            host.images.clear()
        case "panicked":
            host.domains[web] = replace(host.domains[web], power=Power.PANICKED)
        case "of an older agent":
            _remark(host, form=1)
        case "rules lost":
            host.guards.clear()
        case "agent restarted":
            host.restart_agent()
        case "wall lost":
            host.wall = ""
        case "wall breached":
            host.wall = "broken"
        case "port lost":
            del host.links[PORT]
        case "port unplugged":
            host.plugs[PORT] = ""
        case "port gone with it":
            del host.links[PORT], host.plugs[PORT]
        case "bridge":
            host.links[BRIDGE] = Link(BRIDGE, 7, is_bridge=True, mac=BRIDGE_MAC)
        case "br0":
            host.links["br0"] = Link("br0", 7, is_bridge=True, mac=BRIDGE_MAC)
        case "br0 is none":
            host.links["br0"] = Link("br0", 7)
        case "stray port":
            host.links["km0123456789ab"] = Link("km0123456789ab", 8)
        case "asked to stop":
            host.memory.stopping[web] = host.now
            _remark(host, asked=2)
        case "asked in vain":
            host.memory.stopping[web] = host.now
        case "asked before":
            _remark(host, asked=1)
        case "asleep":
            host.domains[web] = replace(host.domains[web], power=Power.ASLEEP)
        case "noted since":
            _remark(host, ran=2)
        case "asked long ago":
            host.memory.stopping[web] = host.now - SITE.shutdown_limit
        case "stranger":
            host.others["x"] = Domain("x", "stranger", disks=frozenset({"/pools/x"}))
        case "impostor":
            host.others[web] = Domain(web, "impostor")
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
            host.memory.importing[id_of("debian")] = 7
        case "stray bridge":
            host.links["kb0123456789ab"] = Link("kb0123456789ab", 7, is_bridge=True)
        case "smaller":
            host.images[root] = Image(root, id_of("pool"), "qcow2", GIB // 2)


def _remark(host: Host, **times: Any) -> None:
    before = host.domains[id_of("web")]
    assert before.mark is not None
    host.domains[before.id] = replace(before, mark=replace(before.mark, **times))


STORY = """
asked                            | found                              | does
root, web                        | -                                  | pool: make pool pool; root: waits: storage pool pool; web: waits: volume root
root debian, debian              | house                        | debian: import debian; root: waits: template debian
root debian, debian              | debian                             | root: create volume root
root, web                        | root                               | web: seed web, define web, start web, note web runs, resume web
root, web                        | root, web                          | -
root, card, web                  | root                               | vnet: make bridge vnet; web: waits: vnet vnet: no bridge BRIDGE
root, card, web                  | root, card, web off                | web: start web, note web runs, guard web, resume web
root, web off                    | root                               | web: seed web, define web
root, web held                   | root                               | web: seed web, define web, start web, note web runs
root, web held again             | root, web                          | web: suspend web, note web runs
root, web again                  | root, web held                     | web: resume web, note web runs
root, web 8G                     | root, web 4G                       | web: redefine web
root, web 8G again               | root, web 4G off                   | web: redefine web, start web, note web runs, resume web
root, web off again              | root, web                          | web: shutdown web, note web stops
root, web off again              | root, web; asked to stop           | web: works: it is shutting down
root, web off again              | root, web; asked long ago          | web: cut power web
root, web off again              | root, web; asked in vain           | web: shutdown web, note web stops
root, web 8G off again           | root, web 4G                       | web: shutdown web, note web stops
root, web off again              | root, web held                     | web: resume web
root, web off again              | root, web held; asked in vain      | web: resume web
root, web off again              | root, web; asleep                  | web: cut power web
root, web                        | root, web; asleep                  | web: resume web
root, web again                  | root, web; asked before, noted since, left   | web: start web, note web runs, resume web
root, web again                  | root, web; asked before, noted since, killed | web: start web, note web runs, resume web
root, web again                  | root, web; asked before, noted since         | -
root, card, web, gone root       | root, card, web; rules lost        | root: waits: domain kowa-WEB, whose disk it is; web: guard web
card, web                        | root, card, web; rules lost        | web: guard web; stranger file POOL/ROOT.qcow2
card, web                        | root, card, web                    | web: waits: volume ROOT; stranger file POOL/ROOT.qcow2
root, card, web, gone card       | root, card, web; rules lost        | vnet: remove service vnet; card: waits: domain kowa-WEB, whose card it is; web: guard web
root, card, web                  | root, card, web; rules lost, file lost | root: fails: its file /pools/POOL/ROOT.qcow2 is missing and never made anew; restore it or delete the volume; web: guard web
root, web                        | root, web; killed                  | web: start web again, resume web
root, web                        | root, web; killed, agent restarted | web: start web again, resume web
root, web                        | root, web; crashing                | web: fails: it stopped by itself 5 times within 10 minutes; see its console, then change or start it
root, web again                  | root, web; crashing                | web: start web, note web runs, resume web
root, web                        | root, web; left                    | web: note web rests
root, web                        | root, web; left, noted             | web: GuestPoweredOff
root, web off again              | root, web; left, noted             | web: GuestPoweredOff
root, web again                  | root, web; left, noted             | web: start web, note web runs, resume web
root, web again                  | root, web; left                    | web: start web, note web runs, resume web
root, card, web                  | root, card, web; rules lost        | web: guard web
root, web                        | root; impostor                     | web: waits: domain impostor, which has its id and does not bear our mark; stranger domain impostor
root, web                        | root, web; stranger                | -; stranger domain stranger
web                              | house                              | web: waits: volume ROOT
root, web                        | root, web; file lost               | root: fails: its file /pools/POOL/ROOT.qcow2 is missing and never made anew; restore it or delete the volume; web: waits: volume root, which failed: its file /pools/POOL/ROOT.qcow2 is missing and never made anew; restore it or delete the volume
root                             | root; pool lost                    | pool: fails: its directory /pools/POOL is missing; mount or restore it; root: waits: storage pool pool
root 2G                          | root                               | root: grow volume root
root 2G, web                     | root, web                          | root: grow volume root live
root 1G                          | root 2G                            | root: fails: it has 2 GiB and never shrinks to 1 GiB
gone web, root                   | root, web                          | web: cut power web, undefine web, remove seed web
gone web, root                   | root, web off                      | web: undefine web, remove seed web
gone web, root                   | root                               | web: gone
gone web root                    | root, web                          | root: waits: domain kowa-WEB, whose disk it is; web: cut power web, undefine web, remove seed web
gone root                        | root                               | root: remove volume root
gone root                        | root; file lost                    | root: remove volume root
gone root                        | root; pool lost                    | pool: fails: its directory /pools/POOL is missing; mount or restore it; root: waits: storage pool POOL, which is missing
gone root                        | house                        | root: gone
root debian, debian              | debian; debian encrypted           | debian: fails: its file is an encrypted qcow2 image (LUKS); root: fails: template debian: its file is an encrypted qcow2 image (LUKS)
gone debian                      | debian; debian encrypted           | debian: remove template debian
gone debian, root debian         | debian, root debian                | debian: waits: 1 volumes that stand on it: ROOT
gone debian, root debian         | debian, root debian; root rebased  | debian: waits: 1 volumes that stand on it: ROOT
gone debian, root debian         | debian, root debian; root damaged  | debian: waits: file POOL/ROOT.qcow2, which may stand on it: its file is damaged; root: fails: its file is damaged
gone debian, gone root           | debian, root; root damaged         | debian: waits: file POOL/ROOT.qcow2, which may stand on it: its file is damaged; root: remove volume root
gone debian                      | debian; debian moved               | debian: fails: its file lies in pool OTHER
gone root                        | root; root moved                   | root: fails: its file lies in pool OTHER
debian                           | debian; debian moved               | debian: fails: its file lies in pool OTHER
gone debian                      | debian                             | debian: remove template debian
gone debian pool                 | house; importing                   | pool: waits: 1 imports into it; debian: stop importing debian
root, card, web, gone vnet       | root, card, web                    | vnet: waits: 1 devices on its bridge BRIDGE; web: waits: vnet VNET, which is being deleted
gone card, root, gone web        | root, card, web                    | vnet: remove service vnet; card: waits: domain kowa-WEB, whose card it is; web: cut power web, undefine web, remove seed web
gone card                        | root, card, web; web removed       | vnet: remove service vnet; card: unguard TAP; stranger file POOL/ROOT.qcow2
nothing                          | root, card, web; web removed       | host: unguard TAP; stranger bridge BRIDGE; stranger file POOL/ROOT.qcow2; stranger metadata port PORT; stranger pool POOL
nothing                          | root, web                          | -; stranger domain kowa-WEB; stranger file POOL/ROOT.qcow2; stranger pool POOL
root                             | root; stray file, stray bridge     | -; stranger bridge kb0123456789ab; stranger file POOL/STRAY.qcow2
"""

SERVICES = """
asked                            | found                              | does
root, card metadata, web         | root; bridge                       | vnet: make service vnet; web: waits: adapter card: its hardware address 02:4d:51:63:da:f4 is the metadata service's of vnet vnet; replace it by another adapter
root, card bridge, web           | root; bridge                       | vnet: make service vnet; web: waits: adapter card: its hardware address 06:00:00:00:00:0a is that of BRIDGE on this host; replace it by another adapter
root, card bridge, web, on br0   | root; br0                          | vnet: make service vnet; web: waits: adapter card: its hardware address 06:00:00:00:00:0a is that of br0 on this host; replace it by another adapter
root, card gateway, web          | root; bridge                       | vnet: make service vnet; web: waits: adapter card: its address 10.9.0.1 is kept for the vnet; replace it by another adapter
root, web                        | root, web; panicked                | web: cut power web
root, web off                    | root, web; panicked                | web: cut power web
root, web held                   | root, web held; panicked           | web: cut power web
gone web, root                   | root, web; panicked                | web: cut power web, undefine web, remove seed web
root, web                        | root, web; of an older agent       | web: redefine web
root, web off                    | root, web off; of an older agent   | web: redefine web
root, web 2G                     | root, web; of an older agent       | web: redefine web
root, card, web                  | root, card; bridge                 | vnet: make service vnet; web: seed web, define web, start web, note web runs, guard web, resume web
root, card, web                  | root, card, web                    | -
root, card, web off again        | root, card, web                    | web: shutdown web, note web stops
root, card, web                  | root, card, web; agent restarted   | vnet: make service vnet
root, card, web                  | root, card, web; wall lost         | vnet: make service vnet
root, card, web                  | root, card, web; wall breached     | vnet: make service vnet
root, card, web                  | root, card, web; port lost         | vnet: make service vnet
root, card, web                  | root, card, web; port unplugged    | vnet: make service vnet
root, card, web, more            | root, card, web                    | vnet: make service vnet
root, card, web, gone more       | root, card, web, more              | vnet: make service vnet; more: gone
root, card, gone web             | root, card, web; web removed       | vnet: remove service vnet; web: gone
root, card, gone web             | root, card, web; web removed, agent restarted                    | vnet: remove service vnet; web: gone
root, card, gone web             | root, card, web; web removed, agent restarted, port gone with it | host: remove wall; web: gone
gone root card web subnet vnet   | root, card, web; web removed       | root: remove volume root; vnet: remove service vnet, remove bridge vnet; subnet: gone; card: unguard TAP; web: gone
root, card, web, gone vnet       | root, card, web; agent restarted   | vnet: waits: 1 devices on its bridge BRIDGE; web: waits: vnet VNET, which is being deleted
root, card, web, on br0          | root                               | web: waits: vnet vnet: no bridge br0
root, card, web, on br0          | root; br0 is none                  | web: waits: vnet vnet: no bridge br0
root, card, web, on br0          | root; br0                          | vnet: make service vnet; web: seed web, define web, start web, note web runs, guard web, resume web
root, card, web, on br0          | root, card, web, on br0; port lost | vnet: make service vnet
root, on br0                     | root, on br0                       | -
gone root card web subnet vnet, on br0 | root, card, web, on br0; web removed | root: remove volume root; vnet: remove service vnet; subnet: gone; card: unguard TAP; web: gone
root                             | root; stray port                   | -; stranger metadata port km0123456789ab
"""


def _lines(story: str) -> list[tuple[str, str, str]]:
    rows = [line.split("|") for line in story.strip().splitlines()[1:]]
    return [(cells[0].strip(), cells[1].strip(), cells[2].strip()) for cells in rows]


def _told(host: Host, slice_: Slice) -> str:
    """What is planned, by the names the story gives things; objects that need nothing are left out."""
    short = {
        id_of(name): name
        for name in ("pool", "debian", "root", "vnet", "subnet", "more", "card", "web", "host", "region")
    }
    result = host.plan(parse(slice_.objects))
    told = [f"{short[id_]}: {verdict}" for id_, verdict in result.verdicts.items() if str(verdict) not in ("-", "")]
    told = told or ["-"]
    text = "; ".join([*told, *(f"stranger {stranger}" for stranger in result.strangers)])
    for name in ("pool", "root", "web", "stray", "vnet"):
        text = text.replace(id_of(name), name.upper())
    return text.replace(BRIDGE, "BRIDGE").replace(TAP, "TAP").replace(PORT, "PORT")


@pytest.mark.parametrize(("wanted", "there", "does"), [*_lines(STORY), *_lines(SERVICES)])
def test_the_least_that_closes_the_difference(wanted: str, there: str, does: str) -> None:
    assert _told(found(there), asked(wanted)) == does
