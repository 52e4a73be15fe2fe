"""What an instance reads when it boots."""

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
CONFIG = settings_of(Path("/p"), Path("/m"))
META_DATA = f"""\
instance-id: {WEB}
local-hostname: web
metadata:
  colour: 'no'
  proof: mine
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
    slice_.instance("web", ("root",), ("nic",), metadata={"proof": "mine", "colour": "no"}, **more)  # type: ignore[arg-type]
    desired = KINDS.parse(slice_.objects)
    web = desired.of(Instance)[WEB]
    return web, devices_of(CONFIG, desired, web)


def write(config: Settings) -> None:
    asyncio.run(Seeds(config).write(*web()))


def look(config: Settings) -> dict[str, str]:
    return asyncio.run(Seeds(config).observe())


def remove(config: Settings) -> None:
    asyncio.run(Seeds(config).remove(WEB))


def test_its_files() -> None:
    assert seed.contents(CONFIG, *web(ssh_keys=("ssh-ed25519 AAAA me",))) == {
        "meta-data": META_DATA,
        "user-data": "#cloud-config\nssh_authorized_keys:\n- ssh-ed25519 AAAA me\n",
        "network-config": NETWORK,
    }


def test_user_data_goes_in_as_it_is() -> None:
    assert seed.contents(CONFIG, *web(user_data="#!/bin/sh\n\ttrue"))["user-data"] == "#!/bin/sh\n\ttrue"


def test_without_keys_no_file_names_keys() -> None:
    files = seed.contents(CONFIG, *web())
    assert files["user-data"] == "#cloud-config\n"
    assert "public-keys" not in files["meta-data"]


def test_an_operator_may_leave_out_the_way_to_the_metadata_service() -> None:
    files = seed.contents(replace(CONFIG, metadata_route=False), *web())
    routes = yaml.safe_load(files["network-config"])["ethernets"]["eth0"]["routes"]
    assert routes == [{"to": "0.0.0.0/0", "via": "10.9.0.1"}]


def test_it_is_written_once_and_read_back(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    assert look(config) == {WEB: seed.fingerprint(config, *web())}
    path = config.seed(WEB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    iso = pycdlib.PyCdlib()
    iso.open(str(path))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    for name, text in seed.contents(config, *web()).items():
        for kind in ("rr_path", "joliet_path"):
            into = io.BytesIO()
            iso.get_file_from_iso_fp(into, **{kind: "/" + name})
            assert into.getvalue().decode() == text
    iso.close()


def test_another_content_is_another_seed(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    assert look(config)[WEB] != seed.fingerprint(config, *web(user_data="#!/bin/sh"))


def test_a_spoilt_seed_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    config.seed(WEB).write_bytes(b"")
    assert look(config) == {WEB: ""}


def test_removed_nothing_is_left(tmp_path: Path) -> None:
    config = settings_of(tmp_path / "pools", tmp_path / "instances")
    write(config)
    for name in ("console.log", "console.log.0", "console.log.1"):  # as libvirt's log daemon turns them over
        (config.instances / WEB / name).write_text("booting")
    remove(config)
    remove(config)
    assert list(config.instances.iterdir()) == []


def test_nothing_that_a_link_leads_to_is_removed(tmp_path: Path) -> None:
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
