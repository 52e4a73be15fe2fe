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
    owner,
    processes,
    runs_in_libvirtd,
    runs_with,
    unprivileged,
    with_libvirtd,
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
    flags = [word for option in options.items() for word in option]
    command = unprivileged(layout, str(layout.bin / "python"), "-m", "gateway", *flags)
    envoy = runs_with("envoy", str(layout.gateway / "envoy.json"))
    launcher = runs_with("python", "gateway", str(layout.gateway))  # until Envoy takes its place
    ports, sources = (slot.gateway, slot.rest), _sources(layout, "gateway")
    return Daemon("gateway", command, lambda process: envoy(process) or launcher(process), ports, sources)


def libvirtd(layout: Layout, *, kvm: bool) -> Daemon:
    """A libvirtd of the demo's own."""
    return Daemon("libvirtd", with_libvirtd(layout, kvm=kvm), runs_in_libvirtd("libvirtd", layout))


def kaktus(layout: Layout) -> Daemon:
    """The host's agent."""
    config = str(layout.root / "kaktus.toml")
    command = with_libvirtd(layout, str(layout.bin / "kaktus"), "--config", config)
    return Daemon("kaktus", command, runs_with("kaktus", config), sources=_sources(layout, "agent_kaktus", config))


def _sources(layout: Layout, *own: str) -> list[Path]:
    """The sources of one of our programs: its own, those that all share, and the list of dependencies."""
    return [layout.checkout / name for name in (*own, "sdk", "pyproject.toml")]


def guests(layout: Layout) -> Daemon:
    """The instances. Started by libvirtd only, never from here."""
    return Daemon("guests", [], runs_in_libvirtd("qemu-system-x86_64", layout))


def write_configuration(layout: Layout, accelerator: str) -> None:
    """Writes the daemons' configuration files, with the ports of this checkout's slot."""
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
        f'servers = ["localhost:{slot.fleet}"]\n'
        f'ca = "{layout.ca}"\n'
        f'token = "{layout.agent_token}"\n'
        f'state = "{layout.kaktus / "state"}"\n'
        f'pools = "{layout.kaktus / "pools"}"\n'
        f'import_dir = "{layout.guest}"\n'
        f'accelerator = "{accelerator}"\n'
        "hold_gateway = true\n"
    )


def create_admin_key(layout: Layout) -> None:
    """Creates the admin key unless there is one."""
    if layout.admin_key.exists():
        return
    key = layout.kahuna / "admin.key"
    config = str(layout.root / "kahuna.toml")
    command = unprivileged(layout, str(layout.bin / "kahuna"), "--config", config, "admin-key", "--out", str(key))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: no admin key: {done.stderr.strip().splitlines()[-1]}")
    chown_to_caller(key)
    key.replace(layout.admin_key)


def chown_to_caller(path: Path) -> None:
    """Gives a file to the user who called `sudo`."""
    os.chown(path, int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


@dataclass(frozen=True, slots=True)
class HostObjects:
    """The names of the bridges, taps and nftables tables that an agent creates on the machine."""

    devices: list[str]
    tables: list[str]


def host_objects(state: Path) -> HostObjects:
    """The objects of the agent with this state directory, whether it runs or not."""
    from agent_kaktus import names
    from kowa.fleet.v1 import fleet_pb2

    found = HostObjects([], [])
    holdings = state / "holdings.db"
    if not holdings.exists():
        return found
    with tempfile.TemporaryDirectory() as folder:
        # A running agent has its database locked, and its latest changes are in the write-ahead log.
        for path in (holdings, holdings.with_name("holdings.db-wal")):
            if path.exists():
                shutil.copy(path, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / "holdings.db")) as connection:
            rows = connection.execute("SELECT data FROM object").fetchall()
    for (data,) in rows:
        stored = fleet_pb2.Object.FromString(data)
        match _noun(stored):
            case "vnet":
                found.devices.extend([names.bridge(stored.id), names.metadata_port(stored.id)])
            case "adapter":
                found.devices.append(names.tap(stored.id))
            case "kaktus":
                table = names.filter_table(stored.id)
                found.tables.extend(f"table {family} {table}" for family in ("bridge", "netdev"))
    return found


def _noun(stored: "fleet_pb2.Object") -> str:
    """The kind of an object that an agent has stored. The agents of commit 35ba30d stored it in field 4."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    from kowa import resources

    unknown = UnknownFieldSet(stored)
    for field in (unknown[index] for index in range(len(unknown))):
        if field.field_number == 4:
            return {4: "kaktus", 9: "vnet", 11: "adapter"}.get(field.data[0] >> 3, "")
    return resources.noun_of(stored.resource)


def delete_host_objects(layout: Layout) -> None:
    """Deletes the bridges, taps and nftables tables of the agent, which has ended and cannot do so itself."""
    objects = host_objects(layout.kaktus / "state")
    for device in objects.devices:
        _quietly("ip", "link", "delete", device)
    for table in objects.tables:
        _quietly("nft", "delete", *table.split())


def objects_of_other_checkouts(layout: Layout) -> list[HostObjects]:
    """The objects of other checkouts' running agents, also of those in a chroot or a container."""
    found = []
    for process in processes():
        command = arguments(process)
        if any(Path(word).name == "kaktus" for word in command) and "--config" in command[:-1]:
            root = process / "root"  # the file system as the agent sees it
            config = root / command[command.index("--config") + 1].lstrip("/")
            with contextlib.suppress(OSError, ValueError, KeyError, sqlite3.Error):
                state = root / tomllib.loads(config.read_text())["state"].lstrip("/")
                own = layout.kaktus / "state"
                if not (own.exists() and state.samefile(own)):
                    found.append(host_objects(state))
    return found


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def all_daemons(layout: Layout) -> list[Daemon]:
    """All daemons, in the order in which they are stopped."""
    return [kaktus(layout), guests(layout), libvirtd(layout, kvm=False), gateway(layout), kahuna(layout)]
