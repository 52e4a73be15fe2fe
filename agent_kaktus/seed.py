"""A machine's seed: the NoCloud volume from which cloud-init learns name, keys and network.

What writes it is imported late: it takes memory that an agent at rest need not have.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from agent_kaktus import ids
from agent_kaktus.desired import Machine, Outfit, Port
from agent_kaktus.site import Site
from kowa import files
from kowa.reserved import METADATA_ADDRESS

_LABEL = "cidata"
_MODE = 0o640  # it holds the user data; libvirt hands it to the user QEMU runs as
# Where an ISO 9660 volume names the application that made it: there its digest stands, in one file with the content.
_MADE_BY = 16 * 2048 + 574
_MADE_BY_SIZE = 128
_FORM = 1  # of the files; moves when they are written down otherwise, so that seeds are made anew


def contents(site: Site, machine: Machine, outfit: Outfit) -> dict[str, str]:
    """Its files. Pure."""
    said = _said(site, machine, outfit)
    return {
        "meta-data": _yaml(said["meta-data"]),
        "user-data": machine.user_data or "#cloud-config\n" + _yaml(said["user-data"]),
        "network-config": _yaml(said["network-config"]),
    }


def digest(site: Site, machine: Machine, outfit: Outfit) -> str:
    """Of what they say; how that is written down is not asked at each look, since it takes its time."""
    text = json.dumps([_FORM, machine.user_data, _said(site, machine, outfit)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest().upper()


def write(site: Site, machine: Machine, outfit: Outfit) -> None:
    path = site.seed(machine.id)
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    image = _iso(contents(site, machine, outfit), digest(site, machine, outfit))
    files.write(path, image, mode=_MODE)


def look(site: Site) -> dict[str, str]:
    """Machine -> digest of its seed, for each machine with a folder; empty if there is no seed in it."""
    return {path.name: _digest_of(path / "seed.iso") for path in ids.named_by_id(site.machines)}


def remove(site: Site, machine: str) -> None:
    """Takes away the machine's folder, which is the agent's own: seed, console log, and what libvirt made of that."""
    folder = site.machines / machine
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    files.sync(site.machines)


def _said(site: Site, machine: Machine, outfit: Outfit) -> dict[str, dict[str, object]]:
    keys = list(machine.ssh_keys)
    cards = {f"eth{number}": _ethernet(site, port, number) for number, port in enumerate(outfit.ports)}
    return {
        "meta-data": {
            "instance-id": machine.id,
            "local-hostname": machine.name,
            "metadata": dict(machine.metadata),
            "public-keys": keys,
        },
        "user-data": {"ssh_authorized_keys": keys},
        "network-config": {"version": 2, "ethernets": cards},
    }


def _ethernet(site: Site, port: Port, number: int) -> dict[str, object]:
    settings: dict[str, object] = {
        "match": {"macaddress": port.card.mac},
        "set-name": f"eth{number}",
        "addresses": [f"{port.card.address}/{port.range.network.prefixlen}"],
    }
    if number == 0 and (routes := _routes(site, port)):
        settings["routes"] = routes
    if port.range.dns:
        settings["nameservers"] = {"addresses": list(port.range.dns)}
    return settings


def _routes(site: Site, port: Port) -> list[dict[str, str]]:
    routes = []
    if port.range.gateway:
        routes.append({"to": "0.0.0.0/0", "via": str(port.range.gateway)})
    if site.metadata_route:
        routes.append({"to": f"{METADATA_ADDRESS}/32", "scope": "link"})
    return routes


def _yaml(data: Mapping[str, object]) -> str:
    """In block style, one scalar a line: small guests read it without a YAML parser."""
    import yaml

    data = {key: value for key, value in data.items() if value}
    if not data:
        return ""
    return yaml.safe_dump(data, default_flow_style=False, sort_keys=False, width=1 << 20, allow_unicode=True)


def _iso(contents_: Mapping[str, str], digest_: str) -> bytes:
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident=_LABEL, app_ident_str=digest_)
    for number, (name, text) in enumerate(contents_.items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path="/" + name)
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as image:
            return os.pread(image.fileno(), _MADE_BY_SIZE, _MADE_BY).decode("ascii", "replace").strip()
    except OSError:
        return ""
