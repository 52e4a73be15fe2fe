"""The demo's daemons and their configuration."""

import os
import subprocess
from pathlib import Path

from deploy.demo.daemons import Daemon, in_room, owner, runs_in_room, runs_with, without_rights
from deploy.demo.house import House


def kahuna(house: House) -> Daemon:
    """The orchestrator."""
    config = str(house.root / "kahuna.toml")
    command = without_rights(house, str(house.bin / "kahuna"), "--config", config, "serve")
    return Daemon("kahuna", command, runs_with("kahuna", config))


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
    return Daemon("gateway", command, runs_with("envoy", str(house.gateway / "envoy.json")))


def libvirtd(house: House, *, kvm: bool) -> Daemon:
    """A libvirtd of the demo's own."""
    return Daemon("libvirtd", in_room(house, kvm=kvm), runs_in_room("libvirtd", house))


def kaktus(house: House) -> Daemon:
    """The host's agent."""
    config = str(house.root / "kaktus.toml")
    command = in_room(house, str(house.bin / "kaktus"), "--config", config)
    return Daemon("kaktus", command, runs_with("kaktus", config))


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
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    made.replace(house.admin_key)
    hand_to_caller(house.admin_key)


def hand_to_caller(path: Path) -> None:
    """Gives a file to whoever called `sudo`, for it is his to read."""
    os.chown(path, int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


def delete_devices(house: House) -> None:
    """Bridges, taps and the nftables table that the agent made, when no agent is there to do it."""
    from agent_kaktus import names
    from kowa.runtime.store import Holdings

    if not (house.kaktus / "state" / "holdings.db").exists():
        return
    held = Holdings(house.kaktus / "state").objects.values()
    for described in held:
        match described.resource.WhichOneof("kind"):
            case "vnet":
                _quietly("ip", "link", "delete", names.bridge(described.id))
            case "adapter":
                _quietly("ip", "link", "delete", names.tap(described.id))
            case "kaktus":
                for family in ("netdev", "bridge"):
                    _quietly("nft", "delete", "table", family, names.guard(described.id))


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def all_daemons(house: House) -> list[Daemon]:
    """All of them, in the order they are stopped."""
    return [kaktus(house), guests(house), libvirtd(house, kvm=False), gateway(house), kahuna(house)]
