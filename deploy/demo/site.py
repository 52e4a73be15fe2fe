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
    in_room,
    owner,
    processes,
    runs_in_room,
    runs_with,
    without_rights,
)
from deploy.demo.house import House

if TYPE_CHECKING:
    from kowa.fleet.v1 import fleet_pb2


def kahuna(house: House) -> Daemon:
    """The orchestrator."""
    config = str(house.root / "kahuna.toml")
    command = without_rights(house, str(house.bin / "kahuna"), "--config", config, "serve")
    slot = house.slot
    ports = (slot.api, slot.metrics, slot.fleet)
    return Daemon("kahuna", command, runs_with("kahuna", config, "serve"), ports, _sources(house, "server", config))


def gateway(house: House) -> Daemon:
    """Envoy."""
    slot = house.slot
    options = {
        "--listen": f"127.0.0.1:{slot.gateway}",
        "--certificate": str(house.kahuna / "server.pem"),
        "--key": str(house.kahuna / "server.key"),
        "--plain": f"127.0.0.1:{slot.rest}",
        "--kahuna": f"127.0.0.1:{slot.api}",
        "--run-dir": str(house.gateway),
        "--concurrency": "1",
    }
    words = [word for option in options.items() for word in option]
    command = without_rights(house, str(house.bin / "python"), "-m", "gateway", *words)
    envoy = runs_with("envoy", str(house.gateway / "envoy.json"))
    before = runs_with("python", "gateway", str(house.gateway))
    ports, sources = (slot.gateway, slot.rest), _sources(house, "gateway")
    return Daemon("gateway", command, lambda process: envoy(process) or before(process), ports, sources)


def libvirtd(house: House, *, kvm: bool) -> Daemon:
    """A libvirtd of the demo's own."""
    return Daemon("libvirtd", in_room(house, kvm=kvm), runs_in_room("libvirtd", house))


def kaktus(house: House) -> Daemon:
    """The host's agent."""
    config = str(house.root / "kaktus.toml")
    command = in_room(house, str(house.bin / "kaktus"), "--config", config)
    return Daemon("kaktus", command, runs_with("kaktus", config), sources=_sources(house, "agent_kaktus", config))


def _sources(house: House, *own: str) -> list[Path]:
    """Of a program of ours: its own, what all have in common, and the list of all that is not ours."""
    return [house.checkout / name for name in (*own, "sdk", "pyproject.toml")]


def guests(house: House) -> Daemon:
    """The machines. Never started from here."""
    return Daemon("guests", [], runs_in_room("qemu-system-x86_64", house))


def write_configuration(house: House, accelerator: str) -> None:
    """The daemons' files, as this checkout's slot wants them."""
    slot = house.slot
    house.root.mkdir(mode=0o711, exist_ok=True)
    for folder, mode in ((house.kahuna, 0o711), (house.gateway, 0o700)):
        folder.mkdir(mode=mode, exist_ok=True)
        os.chown(folder, *owner())
    house.kaktus.mkdir(mode=0o711, exist_ok=True)
    (house.root / "kahuna.toml").write_text(
        f'state = "{house.kahuna}"\n'
        f'api = "127.0.0.1:{slot.api}"\n'
        f'metrics = "127.0.0.1:{slot.metrics}"\n'
        f'fleet = "127.0.0.1:{slot.fleet}"\n'
        'names = ["localhost", "127.0.0.1"]\n'
    )
    (house.root / "kaktus.toml").write_text(
        f'server = "localhost:{slot.fleet}"\n'
        f'ca = "{house.ca}"\n'
        f'token = "{house.agent_token}"\n'
        f'state = "{house.kaktus / "state"}"\n'
        f'pools = "{house.kaktus / "pools"}"\n'
        f'import_dir = "{house.guest}"\n'
        f'accelerator = "{accelerator}"\n'
        "hold_gateway = true\n"
    )


def draw_admin_key(house: House) -> None:
    """The admin key, once."""
    if house.admin_key.exists():
        return
    made = house.kahuna / "admin.key"
    config = str(house.root / "kahuna.toml")
    command = without_rights(house, str(house.bin / "kahuna"), "--config", config, "admin-key", "--out", str(made))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"demo: no admin key: {done.stderr.strip().splitlines()[-1]}")
    hand_to_caller(made)
    made.replace(house.admin_key)


def hand_to_caller(path: Path) -> None:
    """Gives a file to whoever called `sudo`, for it is his to read."""
    os.chown(path, int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


@dataclass(frozen=True, slots=True)
class Traces:
    """What an agent makes on the machine, by name."""

    devices: list[str]
    tables: list[str]


def traces(state: Path) -> Traces:
    """Those of the agent that keeps its state there, whether it runs or not."""
    from agent_kaktus import names
    from kowa.fleet.v1 import fleet_pb2

    found = Traces([], [])
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
                found.devices.extend([names.bridge(described.id), names.port(described.id)])
            case "adapter":
                found.devices.append(names.tap(described.id))
            case "kaktus":
                found.tables.extend(f"table {family} {names.guard(described.id)}" for family in ("bridge", "netdev"))
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


def delete_traces(house: House) -> None:
    """Bridges, taps and nftables tables of the agent, when it is not there to do it."""
    made = traces(house.kaktus / "state")
    for device in made.devices:
        _quietly("ip", "link", "delete", device)
    for table in made.tables:
        _quietly("nft", "delete", *table.split())


def neighbours(house: House) -> list[Traces]:
    """What the agents of other checkouts have made, as far as they run."""
    found = []
    for words in map(arguments, processes()):
        if any(Path(word).name == "kaktus" for word in words) and "--config" in words[:-1]:
            config = Path(words[words.index("--config") + 1])
            with contextlib.suppress(OSError, ValueError, KeyError, sqlite3.Error):
                state = Path(tomllib.loads(config.read_text())["state"])
                if state != house.kaktus / "state":
                    found.append(traces(state))
    return found


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def all_daemons(house: House) -> list[Daemon]:
    """All of them, in the order they are stopped."""
    return [kaktus(house), guests(house), libvirtd(house, kvm=False), gateway(house), kahuna(house)]
