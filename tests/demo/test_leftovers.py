"""`make leftovers` names what the demo left, and nothing that other programs have created since."""

from pathlib import Path

import pytest

from deploy.demo.leftovers import left

CHECKOUT = Path("/home/me/kowabunga")
BEFORE = {
    "devices": ["eth0", "lo", "kb0000000000aa"],
    "namespaces": [],
    "mounts": ["/", "/proc"],
    "tables": ["table inet filter"],
    "files": ["/run/lock", "/tmp/kowabunga-notes"],  # noqa: S108
}
OTHER_DEMOS = {"devices": ["kb0000000000bb"], "tables": ["table bridge kaktus_0000000000bb"]}


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("devices", "eth0"),
        ("devices", "docker0"),
        ("devices", "veth12ab34c"),
        ("devices", "kb0000000000aa"),  # older than the demo
        ("devices", "kb0000000000bb"),  # of another checkout's demo
        ("namespaces", "cni-3f2a"),
        ("mounts", "/media/stick"),
        ("mounts", "/run/netns"),
        ("mounts", "/proc/sys/fs/binfmt_misc"),
        ("tables", "table ip nat"),
        ("tables", "table bridge kaktus_0000000000bb"),
        ("files", "/run/mount"),  # mount(8)
        ("files", "/run/sudo"),
        ("files", "/run/blkid"),
        ("files", "/run/xtables.lock"),
        ("files", "/run/netns/cni-3f2a"),
        ("files", "/tmp/kowabunga-notes"),  # noqa: S108
        ("files", "/tmp/pytest-of-root"),  # noqa: S108
    ],
)
def test_entries_of_other_programs_are_not_named(kind: str, entry: str) -> None:
    assert left(BEFORE, {kind: [entry]}, OTHER_DEMOS, CHECKOUT) == []


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("devices", "kb0123456789ab"),
        ("devices", "kt0123456789ab"),
        ("devices", "km0123456789ab"),
        ("devices", "virbr0"),
        ("namespaces", "kiwi-1"),
        ("mounts", "/home/me/kowabunga/.demo/libvirt/run"),
        ("mounts", "/var/lib/libvirt"),
        ("tables", "table netdev kaktus_0123456789ab"),
        ("files", "/run/libvirt"),
        ("files", "/run/libvirt/qemu"),
        ("files", "/run/kahuna.pid"),
        ("files", "/run/netns/kiwi-1"),
        ("files", "/var/log/libvirt/qemu"),
        ("files", "/tmp/kowactl-x"),  # noqa: S108
    ],
)
def test_entries_of_the_demo_are_named(kind: str, entry: str) -> None:
    assert left(BEFORE, {kind: [entry]}, OTHER_DEMOS, CHECKOUT) == [f"{kind}: {entry}"]
