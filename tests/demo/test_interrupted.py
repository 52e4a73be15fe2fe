"""When `make demo` is stopped, one line gives the reason, and the next `make demo` goes on from there."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.checkout import Checkout
from tests.waiting import until

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

PHASES = ("kahuna", "gateway", "libvirtd", "agent", "machine")


@pytest.fixture(scope="module", autouse=True)
def _clean_checkout(checkout: Checkout) -> None:
    checkout.run("make -s down; git checkout --quiet .; git clean -dfq; rm -rf .demo")


def test_ctrl_c_in_any_phase_prints_a_line_and_loses_nothing(checkout: Checkout) -> None:
    for phase in PHASES:
        output = checkout.interrupted("make demo", at=f"{phase:<14} ...")
        assert "goes on from here" in output.text, output
        assert "Traceback" not in output.text
        assert output.code != 0
    checkout.run("make demo")
    ids_by_kind = checkout.ids_by_kind()
    assert {kind: len(ids) for kind, ids in ids_by_kind.items()} == dict.fromkeys(ids_by_kind, 1)
    assert checkout.domains() == [f"kowa-{id_}" for id_ in ids_by_kind["instance"]]


def test_ctrl_c_does_not_reach_running_programs(checkout: Checkout) -> None:
    before = checkout.pids()
    checkout.interrupted("make demo", at="machine        ...")
    assert checkout.pids() == before


def test_a_second_make_at_the_same_time_is_refused(checkout: Checkout) -> None:
    command = "flock --nonblock . true && flock . make -s down"
    assert checkout.refusal(command) == (
        "demo: another `make demo` or `make down` is at work in this checkout; wait for it"
    )
    assert "guests" in checkout.pids()


def test_a_port_in_use_is_named(checkout: Checkout) -> None:
    checkout.run("make -s down")
    port = int(checkout.run("grep -oP '\"rest\": \\K[0-9]+' .demo/slot.json"))
    with socket.create_server(("127.0.0.1", port)):
        assert checkout.refusal("make demo").startswith(f"demo: port {port} is in use by ")


@pytest.fixture
def small_disk(checkout: Checkout) -> Iterator[Path]:
    """The folder .demo, on its own disk of one MiB."""
    checkout.run("make -s down; rm -rf .demo; mkdir .demo; mount -t tmpfs -o size=1m,mode=711 kowabunga-test .demo")
    yield checkout.folder / ".demo"
    checkout.run("make -s down")
    # Another demo on this machine may be reading files of this one's agent.
    until(lambda: checkout.succeeds("umount .demo"), what="an unused disk")


def test_a_full_disk_is_named_and_with_space_the_demo_goes_on(checkout: Checkout, small_disk: Path) -> None:
    refused = f"demo: 1 MiB are free on the disk of {small_disk}, 500 are needed; make room"
    assert checkout.refusal("make demo") == refused
    # As when the disk fills up after the check.
    line = checkout.refusal(".venv/bin/python -m deploy.demo up")
    assert line.endswith(f"MiB are free on the disk of {small_disk}: make room and run `make demo` again")
    checkout.run(f"mount -o remount,size=600m {small_disk}")
    assert "hello  running" in checkout.run("make demo")


def test_without_root_make_demo_says_what_to_type(checkout: Checkout) -> None:
    nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs"
    assert "`sudo make demo`" in checkout.refusal(f"REACHABLE=$PWD deploy/host/reachable {nobody} deploy/check demo")
