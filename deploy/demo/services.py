"""The demo's daemons and their configuration."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.demo.daemons import (
    Daemon,
    arguments,
    beside_libvirtd,
    owner,
    processes,
    runs_beside_libvirtd,
    runs_with,
    unprivileged,
)
from deploy.demo.layout import Layout

if TYPE_CHECKING:
    from kowa.fleet.v1 import fleet_pb2


def kahuna(layout: Layout) -> Daemon:
    """The orchestrator."""
    config = str(layout.root / "kahuna.toml")
    command = unprivileged(layout, str(layout.bin / "kahuna"), "--config", config, "serve")
    slot = layout.slot
    ports = (slot.api, slot.metrics, slot.fleet)
    return Daemon("kahuna", command, runs_with("kahuna", config, "serve"), ports, _sources(layout, "server", config))


def gateway(layout: Layout) -> Daemon:
    """Envoy."""
    slot = layout.slot
    options = {
        "--listen": f"127.0.0.1:{slot.gateway}",
        "--certificate": str(layout.kahuna / "server.pem"),
        "--key": str(layout.kahuna / "server.key"),
        "--plain": f"127.0.0.1:{slot.rest}",
        "--kahuna": f"127.0.0.1:{slot.api}",
        "--run-dir": str(layout.gateway),
        "--concurrency": "1",
    }
    words = [word for option in options.items() for word in option]
    command = unprivileged(layout, str(layout.bin / "python"), "-m", "gateway", *words)
    envoy = runs_with("envoy", str(layout.gateway / "envoy.json"))
    before = runs_with("python", "gateway", str(layout.gateway))
    ports, sources = (slot.gateway, slot.rest), _sources(layout, "gateway")
    return Daemon("gateway", command, lambda process: envoy(process) or before(process), ports, sources)


def libvirtd(layout: Layout, *, kvm: bool) -> Daemon:
    """A libvirtd of the demo's own."""
    return Daemon("libvirtd", beside_libvirtd(layout, kvm=kvm), runs_beside_libvirtd("libvirtd", layout))


def kaktus(layout: Layout) -> Daemon:
    """The host's agent."""
    config = str(layout.root / "kaktus.toml")
    command = beside_libvirtd(layout, str(layout.bin / "kaktus"), "--config", config)
    return Daemon("kaktus", command, runs_with("kaktus", config), sources=_sources(layout, "agent_kaktus", config))


def _sources(layout: Layout, *own: str) -> list[Path]:
    """Of a program of ours: its own, what all have in common, and the list of all that is not ours."""
    return [layout.checkout / name for name in (*own, "sdk", "pyproject.toml")]


def guests(layout: Layout) -> Daemon:
    """The machines. Never started from here."""
    return Daemon("guests", [], runs_beside_libvirtd("qemu-system-x86_64", layout))


def write_configuration(layout: Layout, accelerator: str) -> None:
    """The daemons' files, as this checkout's slot wants them."""
    slot = layout.slot
    layout.root.mkdir(mode=0o711, exist_ok=True)
    for folder, mode in ((layout.kahuna, 0o711), (layout.gateway, 0o700)):
        folder.mkdir(mode=mode, exist_ok=True)
        os.chown(folder, *owner())
    layout.kaktus.mkdir(mode=0o711, exist_ok=True)
    (layout.root / "kahuna.toml").write_text(
        f'state = "{layout.kahuna}"\n'
        f'api = "127.0.0.1:{slot.api}"\n'
        f'metrics = "127.0.0.1:{slot.metrics}"\n'
        f'fleet = "127.0.0.1:{slot.fleet}"\n'
        'names = ["localhost", "127.0.0.1"]\n'
    )
    (layout.root / "kaktus.toml").write_text(
        f'server = "localhost:{slot.fleet}"\n'
        f'ca = "{layout.ca}"\n'
        f'token = "{layout.agent_token}"\n'
        f'state = "{layout.kaktus / "state"}"\n'
        f'pools = "{layout.kaktus / "pools"}"\n'
        f'import_dir = "{layout.guest}"\n'
        f'accelerator = "{accelerator}"\n'
        "hold_gateway = true\n"
    )


def create_admin_key(layout: Layout) -> None:
    """The admin key, once."""
    if layout.admin_key.exists():
        return
    made = layout.kahuna / "admin.key"
    config = str(layout.root / "kahuna.toml")
    command = unprivileged(layout, str(layout.bin / "kahuna"), "--config", config, "admin-key", "--out", str(made))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: no admin key: {done.stderr.strip().splitlines()[-1]}")
    chown_to_caller(made)
    made.replace(layout.admin_key)


def chown_to_caller(path: Path) -> None:
    """Gives a file to whoever called `sudo`, to whom it belongs."""
    os.chown(path, int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


@dataclass(frozen=True, slots=True)
class HostObjects:
    """The bridges, taps and nftables tables that an agent makes on the machine, by name."""

    devices: list[str]
    tables: list[str]


def host_objects(state: Path) -> HostObjects:
    """Those of the agent that keeps its state there, whether it runs or not."""
    from agent_kaktus import names
    from kowa.fleet.v1 import fleet_pb2

    found = HostObjects([], [])
    holdings = state / "holdings.db"
    if not holdings.exists():
        return found
    with tempfile.TemporaryDirectory() as folder:
        # An agent that runs has its file for itself, and its latest words in the one beside it.
        for path in (holdings, holdings.with_name("holdings.db-wal")):
            if path.exists():
                shutil.copy(path, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / "holdings.db")) as connection:
            rows = connection.execute("SELECT data FROM object").fetchall()
    for (data,) in rows:
        described = fleet_pb2.Object.FromString(data)
        match _noun(described):
            case "vnet":
                found.devices.extend([names.bridge(described.id), names.metadata_port(described.id)])
            case "adapter":
                found.devices.append(names.tap(described.id))
            case "kaktus":
                found.tables.extend(
                    f"table {family} {names.filter_table(described.id)}" for family in ("bridge", "netdev")
                )
    return found


def _noun(described: "fleet_pb2.Object") -> str:
    """The kind of what an agent has stored. The agents of commit 35ba30d stored it otherwise (field 4)."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    from kowa import resources

    stored = UnknownFieldSet(described)
    for old in (stored[index] for index in range(len(stored))):
        if old.field_number == 4:
            return {4: "kaktus", 9: "vnet", 11: "adapter"}.get(old.data[0] >> 3, "")
    return resources.noun_of(described.resource)


def delete_host_objects(layout: Layout) -> None:
    """Bridges, taps and nftables tables of the agent, when it is not there to do it."""
    made = host_objects(layout.kaktus / "state")
    for device in made.devices:
        _quietly("ip", "link", "delete", device)
    for table in made.tables:
        _quietly("nft", "delete", *table.split())


def objects_of_other_checkouts(layout: Layout) -> list[HostObjects]:
    """What the agents of other checkouts have made, as far as they run: also in a chroot or a container."""
    found = []
    for process in processes():
        words = arguments(process)
        if any(Path(word).name == "kaktus" for word in words) and "--config" in words[:-1]:
            files = process / "root"  # as the agent sees them
            config = files / words[words.index("--config") + 1].lstrip("/")
            with contextlib.suppress(OSError, ValueError, KeyError, sqlite3.Error):
                state = files / tomllib.loads(config.read_text())["state"].lstrip("/")
                own = layout.kaktus / "state"
                if not (own.exists() and state.samefile(own)):
                    found.append(host_objects(state))
    return found


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def all_daemons(layout: Layout) -> list[Daemon]:
    """All of them, in the order they are stopped."""
    return [kaktus(layout), guests(layout), libvirtd(layout, kvm=False), gateway(layout), kahuna(layout)]
