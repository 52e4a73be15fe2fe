"""Files that are disks: whole or not there, never smaller, never made twice."""

import asyncio
import errno
import json
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent_kaktus import process
from agent_kaktus.actual import Image
from agent_kaktus.errors import StepFailed
from agent_kaktus.storage import image
from agent_kaktus.storage.dir import MARKER, DirDriver, StorageState
from tests.kaktus.settings_of import settings_of

from .slices import MIB, id_of

POOL, ROOT, DEBIAN = id_of("pool"), id_of("root"), id_of("debian")


@pytest.fixture
def pools(tmp_path: Path) -> DirDriver:
    driver = DirDriver(settings_of(tmp_path / "pools", tmp_path / "instances"), tmp_path / "created")
    asyncio.run(driver.observe())
    asyncio.run(driver.create_pool(POOL))
    return driver


def create_root(pools: DirDriver, size: int = 64 * MIB, template: Image | None = None) -> None:
    asyncio.run(pools.create_volume(POOL, ROOT, size, template))


def look(pools: DirDriver) -> StorageState:
    return asyncio.run(pools.observe())


def seen(pools: DirDriver, id_: str = ROOT) -> Image | None:
    return look(pools).images.get(id_)


def test_a_pool_tells_its_room(pools: DirDriver) -> None:
    state = look(pools)
    assert state.pools[POOL].capacity >= state.pools[POOL].available > 0
    assert state.images == {}
    assert state.created == {POOL}


def test_an_empty_mount_point_is_no_pool(pools: DirDriver, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / MARKER).unlink()
    state = look(pools)
    assert state.pools == {}
    assert state.created == {POOL}


def test_a_volume_is_made_grown_and_removed(pools: DirDriver, tmp_path: Path) -> None:
    create_root(pools)
    create_root(pools)
    found = seen(pools)
    assert found is not None
    assert (found.size, found.format, found.backing, found.broken) == (64 * MIB, "qcow2", "", "")
    assert found.allocation < MIB
    asyncio.run(pools.grow(POOL, ROOT, 96 * MIB))
    assert seen(pools).size == 96 * MIB  # type: ignore[union-attr]
    asyncio.run(pools.remove(POOL, ROOT))
    asyncio.run(pools.remove(POOL, ROOT))
    state = look(pools)
    assert not state.images
    assert state.created == {POOL}
    assert [path.name for path in (tmp_path / "pools" / POOL).iterdir()] == [MARKER]


def test_a_disk_that_is_there_is_never_replaced(
    pools: DirDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it, and however late it came."""
    disk = tmp_path / "pools" / POOL / f"{ROOT}.qcow2"

    def create(path: Path, size: int, _: Image | None) -> Awaitable[None]:
        path.write_bytes(b"new")
        disk.write_bytes(b"a guest has written here")
        return asyncio.sleep(0)

    monkeypatch.setattr(image, "create", create)
    with pytest.raises(FileExistsError):
        create_root(pools)
    pools.staging_file(POOL, ROOT).write_bytes(b"new")
    with pytest.raises(FileExistsError):
        pools.add_template(POOL, ROOT, "qcow2")
    assert disk.read_bytes() == b"a guest has written here"


def test_a_volume_stands_thin_on_its_template(pools: DirDriver, tmp_path: Path) -> None:
    with pools.staging_file(POOL, DEBIAN).open("wb") as part:
        part.write(b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (MIB - 512))
    pools.add_template(POOL, DEBIAN, "raw")
    template = seen(pools, DEBIAN)
    assert template is not None
    assert (template.format, template.size) == ("raw", MIB)
    create_root(pools, 2 * MIB, template)
    found = seen(pools)
    assert found is not None
    assert (found.backing, found.size) == (f"{DEBIAN}.raw", 2 * MIB)


def test_what_a_killed_run_left_is_cleaned_and_nothing_else(pools: DirDriver, tmp_path: Path) -> None:
    directory = tmp_path / "pools" / POOL
    for name in (f"{ROOT}.qcow2.part", f"{DEBIAN}.part", f"{ROOT}.qcow2", "notes.part", f"{ROOT}.txt"):
        (directory / name).write_bytes(b"")
    pools.clean([POOL])
    assert {path.name for path in directory.iterdir()} == {MARKER, f"{ROOT}.qcow2", "notes.part", f"{ROOT}.txt"}


def test_a_file_that_is_no_image_is_told(pools: DirDriver, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / f"{ROOT}.qcow2").write_text("hello")
    assert "is not a qcow2 image" in seen(pools).broken  # type: ignore[union-attr]


def a_ring(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_wild_header(path: Path) -> None:
    path.write_bytes(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 1 << 63, 10, 16, MIB) + bytes(512))


def half_a_header(path: Path) -> None:
    path.write_bytes(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, MIB) + bytes(32))


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
@pytest.mark.parametrize("put", [Path.mkdir, a_ring, a_pipe, a_wild_header, half_a_header])
def test_a_file_that_makes_no_sense_hides_no_other(
    pools: DirDriver, tmp_path: Path, put: Callable[[Path], None], format_: str
) -> None:
    create_root(pools)
    put(tmp_path / "pools" / POOL / f"{DEBIAN}.{format_}")
    assert seen(pools).broken == ""  # type: ignore[union-attr]
    assert (format_ == "raw" and put in (a_wild_header, half_a_header)) == (seen(pools, DEBIAN).broken == "")  # type: ignore[union-attr]


def test_a_pool_that_can_not_be_read_is_away_and_hides_no_other(
    pools: DirDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = id_of("other")
    asyncio.run(pools.create_pool(other))
    create_root(pools)
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == other:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(Path, "glob", lambda path, _: iterdir(path))
    state = look(pools)
    assert (set(state.pools), set(state.images), state.created) == ({POOL}, {ROOT}, frozenset({POOL, other, ROOT}))
    pools.clean([other])


def test_a_mount_point_is_emptied_and_left(pools: DirDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "pools" / POOL
    (directory / "lost+found").mkdir()
    (directory / "lost+found" / "#1").write_bytes(b"somebody's")

    def rmdir(_: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with pytest.raises(StepFailed, match=r"lost\+found"):
        asyncio.run(pools.remove_pool(POOL))
    (directory / "lost+found" / "#1").unlink()
    asyncio.run(pools.remove_pool(POOL))
    asyncio.run(pools.remove_pool(POOL))
    assert look(pools) == StorageState({}, {}, frozenset())


def test_half_a_template_of_a_killed_run_keeps_no_pool(pools: DirDriver, tmp_path: Path) -> None:
    """It was away when the agent started, and is only cleaned now."""
    pools.staging_file(POOL, DEBIAN).write_bytes(b"half")
    asyncio.run(pools.remove_pool(POOL))
    assert list((tmp_path / "pools").iterdir()) == []


def test_a_pool_with_something_in_it_stays(pools: DirDriver, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / "notes").write_text("mine")
    with pytest.raises(StepFailed, match="notes"):
        asyncio.run(pools.remove_pool(POOL))
    (tmp_path / "pools" / POOL / "notes").unlink()
    asyncio.run(pools.remove_pool(POOL))
    assert look(pools) == StorageState({}, {}, frozenset())


def test_nobody_else_may_read_a_disk(pools: DirDriver, tmp_path: Path) -> None:
    create_root(pools)
    path = tmp_path / "pools" / POOL / f"{ROOT}.qcow2"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o711"
    assert os.listdir(tmp_path / "pools") == [POOL]  # noqa: PTH208


def test_the_header_is_read_as_qemu_img_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    asyncio.run(image.create(path, 3 * MIB))
    told = asyncio.run(process.run("qemu-img", "info", "--output=json", str(path)))
    assert image.read_header(path).size == json.loads(told)["virtual-size"] == 3 * MIB
