"""An instance's seed: the NoCloud ISO from which cloud-init reads name, keys and network."""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pycdlib
import yaml

from agent_kaktus import names
from agent_kaktus.compute.desired import Devices, Instance
from agent_kaktus.network.adapter import Attachment
from agent_kaktus.settings import Settings
from kowa import files
from kowa.reserved import METADATA_ADDRESS
from kowa.runtime.tasks import in_thread

_MODE = 0o640  # it contains the user data; libvirt gives it to the user that QEMU runs as
# The field of an ISO 9660 volume for the application that created it, in which the fingerprint is stored.
_APPLICATION_OFFSET = 16 * 2048 + 574
_APPLICATION_SIZE = 128
_FORMAT_VERSION = 1  # of the files; raised when their format changes, so that seeds are written again


class Seeds:
    """The seeds of this host's instances."""

    def __init__(self, config: Settings) -> None:
        self._config = config

    @in_thread
    def observe(self) -> dict[str, str]:
        """Instance -> fingerprint of its seed, for each instance with a folder; empty if the folder has no seed."""
        return {path.name: _read_fingerprint(path / "seed.iso") for path in names.named_by_id(self._config.instances)}

    @in_thread
    def write(self, instance: Instance, devices: Devices) -> None:
        path = self._config.seed(instance.id)
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        image = _iso(contents(self._config, instance, devices), fingerprint(self._config, instance, devices))
        files.write(path, image, mode=_MODE)

    @in_thread
    def remove(self, instance: str) -> None:
        """Removes the instance's folder, which belongs to the agent: seed, console log, and its rotated files."""
        folder = self._config.instances / instance
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        files.sync(self._config.instances)


def contents(config: Settings, instance: Instance, devices: Devices) -> dict[str, str]:
    """The files of a seed. Pure."""
    data = _data(config, instance, devices)
    return {
        "meta-data": _yaml(data["meta-data"]),
        "user-data": instance.user_data or "#cloud-config\n" + _yaml(data["user-data"]),
        "network-config": _yaml(data["network-config"]),
    }


def fingerprint(config: Settings, instance: Instance, devices: Devices) -> str:
    """Hashes a seed's data, not its files: each plan compares the result, and the files take long to make."""
    text = json.dumps([_FORMAT_VERSION, instance.user_data, _data(config, instance, devices)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest().upper()


def _data(config: Settings, instance: Instance, devices: Devices) -> dict[str, dict[str, object]]:
    keys = list(instance.ssh_keys)
    ethernets = [_ethernet(config, attachment, number) for number, attachment in enumerate(devices.attachments)]
    return {
        "meta-data": {
            "instance-id": instance.id,
            "local-hostname": instance.name,
            "metadata": dict(instance.metadata),
            "public-keys": keys,
        },
        "user-data": {"ssh_authorized_keys": keys},
        "network-config": {"version": 2, "ethernets": {str(each["set-name"]): each for each in ethernets}},
    }


def _ethernet(config: Settings, attachment: Attachment, number: int) -> dict[str, object]:
    adapter, subnet = attachment.adapter, attachment.subnet
    routes = []
    if number == 0 and subnet.gateway:
        routes.append({"to": "0.0.0.0/0", "via": str(subnet.gateway)})
    if number == 0 and config.metadata_route:
        routes.append({"to": f"{METADATA_ADDRESS}/32", "scope": "link"})
    settings = {
        "match": {"macaddress": adapter.mac},
        "set-name": f"eth{number}",
        "addresses": [f"{adapter.address}/{subnet.network.prefixlen}"],
        "routes": routes,
        "nameservers": {"addresses": list(subnet.dns)} if subnet.dns else {},
    }
    return {name: value for name, value in settings.items() if value}


def _yaml(data: Mapping[str, object]) -> str:
    """YAML in block style, one scalar a line, so that small guests can read it without a YAML parser."""
    data = {key: value for key, value in data.items() if value}
    if not data:
        return ""
    return yaml.safe_dump(data, default_flow_style=False, sort_keys=False, width=1 << 20, allow_unicode=True)


def _iso(contents: Mapping[str, str], fingerprint: str) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident="cidata", app_ident_str=fingerprint)
    for number, (name, text) in enumerate(contents.items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path="/" + name)
    image = io.BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def _read_fingerprint(path: Path) -> str:
    try:
        with path.open("rb") as image:
            return os.pread(image.fileno(), _APPLICATION_SIZE, _APPLICATION_OFFSET).decode("ascii", "replace").strip()
    except OSError:
        return ""
