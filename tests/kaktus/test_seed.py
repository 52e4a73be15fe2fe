"""The seed, an ISO image that an instance reads when it boots."""

import asyncio
import io
import stat
from pathlib import Path

import pycdlib
import yaml
from msgspec.structs import replace

from agent_kaktus.compute import seed
from agent_kaktus.compute.desired import Devices, Instance, devices_of
from agent_kaktus.compute.seed import Seeds
from agent_kaktus.kinds import KINDS
from agent_kaktus.settings import Settings
from tests.kaktus.settings_of import settings_of

from .slices import Slice, id_of, slice_with_network

WEB = id_of("web")
CONFIG = settings_of(Path("/pools"), Path("/instances"))
# Without quotes YAML would read the text no as false.
META_DATA = f"""\
instance-id: {WEB}
local-hostname: web
metadata:
  colour: 'no'
  owner: ada
public-keys:
- ssh-ed25519 AAAA me
"""
NETWORK = """\
version: 2
ethernets:
  eth0:
    match:
      macaddress: 02:00:00:00:00:01
    set-name: eth0
    addresses:
    - 10.9.0.2/24
    routes:
    - to: 0.0.0.0/0
      via: 10.9.0.1
    - to: 169.254.169.254/32
      scope: link
"""


def web(**more: object) -> tuple[Instance, Devices]:
    slice_: Slice = slice_with_network()
    slice_.volume("root")
    slice_.adapter("nic", "10.9.0.2")
    slice_.instance("web", ("root",), ("nic",), metadata={"owner": "ada", "colour": "no"}, **more)  # type: ignore[arg-type]
    desired = KINDS.parse(slice_.objects)
    web = desired.of(Instance)[WEB]
    return web, devices_of(CONFIG, desired, web)


def write(config: Settings) -> None:
    asyncio.run(Seeds(config).write(*web()))


def observe(config: Settings) -> dict[str, str]:
    return asyncio.run(Seeds(config).observe())


def remove(config: Settings) -> None:
    asyncio.run(Seeds(config).remove(WEB))


def test_contents() -> None:
    assert seed.contents(CONFIG, *web(ssh_keys=("ssh-ed25519 AAAA me",))) == {
        "meta-data": META_DATA,
        "user-data": "#cloud-config\nssh_authorized_keys:\n- ssh-ed25519 AAAA me\n",
        "network-config": NETWORK,
    }


def test_user_data_is_unchanged() -> None:
    assert seed.contents(CONFIG, *web(user_data="#!/bin/sh\n\ttrue"))["user-data"] == "#!/bin/sh\n\ttrue"


def test_without_ssh_keys_no_file_mentions_keys() -> None:
    files = seed.contents(CONFIG, *web())
    assert files["user-data"] == "#cloud-config\n"
    assert "public-keys" not in files["meta-data"]


def test_the_route_to_the_metadata_service_can_be_disabled() -> None:
    files = seed.contents(replace(CONFIG, metadata_route=False), *web())
    routes = yaml.safe_load(files["network-config"])["ethernets"]["eth0"]["routes"]
    assert routes == [{"to": "0.0.0.0/0", "via": "10.9.0.1"}]


def test_a_written_seed_is_read_back(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    assert observe(config) == {WEB: seed.fingerprint(config, *web())}
    path = config.seed(WEB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    for name, text in seed.contents(config, *web()).items():
        for kind in ("rr_path", "joliet_path"):
            content = io.BytesIO()
            iso.get_file_from_iso_fp(content, **{kind: "/" + name})
            assert content.getvalue().decode() == text
    iso.close()


def test_other_contents_have_another_fingerprint(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    assert observe(config)[WEB] != seed.fingerprint(config, *web(user_data="#!/bin/sh"))


def test_a_damaged_seed_has_no_fingerprint(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    config.seed(WEB).write_bytes(b"")
    assert observe(config) == {WEB: ""}


def test_removing_leaves_no_file(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    for name in ("console.log", "console.log.0", "console.log.1"):  # as libvirt's log daemon rotates them
        (config.instances / WEB / name).write_text("booting")
    remove(config)
    remove(config)
    assert list(config.instances.iterdir()) == []


def test_removing_does_not_follow_links(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    write(config)
    (config.instances / WEB / "link").symlink_to(elsewhere)
    remove(config)
    (config.instances / WEB).symlink_to(elsewhere)
    remove(config)
    assert list(config.instances.iterdir()) == []
    assert (elsewhere / "precious").read_text() == "mine"
