"""The agent killed at each of its crash points, on a real libvirt: the next run ends where an unhurt one does."""

import os
from pathlib import Path

import pytest

from .rooms import Room, eventually, room
from .slices import MIB, Slice, id_of, small_house
from .test_real import BOOT, HOUSE, WEB, is_running

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


def house(host: Room) -> Slice:
    slice_ = small_house()
    name, checksum = host.offer_guest()
    slice_.template("guest", name, checksum)
    slice_.volume("root", 128 * MIB, "guest")
    slice_.adapter("card", "10.9.0.2")
    slice_.instance("web", ("root",), ("card",))
    return slice_


def live(host: Room, slice_: Slice, *, gone: bool) -> None:
    """One agent brings the slice about."""
    with host.agent(hold_gateway=True) as agent:
        agent.send(slice_.objects)
        if gone:
            for thing in HOUSE:
                agent.until(id_of(thing), lambda report: report.gone, BOOT)
        else:
            agent.until(WEB, is_running, BOOT)


def die(host: Room, slice_: Slice, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One agent gets as far as a crash point."""
    with monkeypatch.context() as env:
        env.setenv("KOWA_CRASH_POINT", point)
        with host.agent(hold_gateway=True) as agent:
            agent.send(slice_.objects)
            eventually(agent.is_dead, BOOT, f"{point} is reached")


def nothing_left(host: Room) -> bool:
    files = [path for place in (host.pools, host.machines, host.state / "made") for path in place.iterdir()]
    domains = host.virsh("list", "--all", "--name")
    links = [line.split()[0] for line in host.run("ip", "-br", "link").splitlines()]
    return not files and not domains and links == ["lo"] and host.run("nft", "list", "ruleset") == ""


def test_killed_anywhere_it_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    with room() as host:
        with monkeypatch.context() as env:
            env.setitem(os.environ, "KOWA_CRASH_TRACE", str(trace))
            wanted = house(host)
            live(host, wanted, gone=False)
            coming = list(dict.fromkeys(trace.read_text().split()))
            wanted.gone(*HOUSE)
            live(host, wanted, gone=True)
            going = [point for point in dict.fromkeys(trace.read_text().split()) if point not in coming]
        assert len(coming) >= 13
        assert len(going) >= 8
        for point in coming:
            wanted = house(host)
            die(host, wanted, point, monkeypatch)
            live(host, wanted, gone=False)
            wanted.gone(*HOUSE)
            live(host, wanted, gone=True)
            assert nothing_left(host), point
        for point in going:
            wanted = house(host)
            live(host, wanted, gone=False)
            wanted.gone(*HOUSE)
            die(host, wanted, point, monkeypatch)
            live(host, wanted, gone=True)
            assert nothing_left(host), point
