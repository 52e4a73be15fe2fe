"""Files that are disks: whole or not there, never smaller, never made twice."""

import asyncio
import errno
import os
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent_kaktus.actual import Image
from agent_kaktus.desired import Volume
from agent_kaktus.failures import StepFailed
from agent_kaktus.parse import parse
from agent_kaktus.storage import image
from agent_kaktus.storage.dir import MARK, DirPools

from .slices import MIB, id_of, small_house

POOL, ROOT, DEBIAN = id_of("pool"), id_of("root"), id_of("debian")


@pytest.fixture
def pools(tmp_path: Path) -> DirPools:
    made = DirPools(tmp_path / "pools", tmp_path / "made")
    made.look()
    made.make_pool(POOL)
    return made


def root(size: int = 64 * MIB, template: str = "") -> Volume:
    slice_ = small_house()
    slice_.volume("root", size, template)
    return parse(slice_.objects).volumes[ROOT]


def seen(pools: DirPools, id_: str = ROOT) -> Image | None:
    return pools.look()[1].get(id_)


def test_a_pool_tells_its_room(pools: DirPools) -> None:
    found, images, made = pools.look()
    assert found[POOL].capacity >= found[POOL].available > 0
    assert images == {}
    assert made == {POOL}


def test_an_empty_mount_point_is_no_pool(pools: DirPools, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / MARK).unlink()
    found, _, made = pools.look()
    assert found == {}
    assert made == {POOL}


def test_a_volume_is_made_grown_and_removed(pools: DirPools, tmp_path: Path) -> None:
    asyncio.run(pools.create(root(), None))
    asyncio.run(pools.create(root(), None))
    found = seen(pools)
    assert found is not None
    assert (found.size, found.format, found.backing, found.broken) == (64 * MIB, "qcow2", "", "")
    assert found.allocation < MIB
    asyncio.run(pools.grow(root(96 * MIB)))
    assert seen(pools).size == 96 * MIB  # type: ignore[union-attr]
    pools.remove(ROOT, POOL)
    pools.remove(ROOT, POOL)
    _, images, made = pools.look()
    assert not images
    assert made == {POOL}
    assert [path.name for path in (tmp_path / "pools" / POOL).iterdir()] == [MARK]


def test_a_disk_that_is_there_is_never_replaced(
    pools: DirPools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it, and however late it came."""
    disk = tmp_path / "pools" / POOL / f"{ROOT}.qcow2"

    def create(path: Path, size: int) -> Awaitable[None]:
        path.write_bytes(b"new")
        disk.write_bytes(b"a guest has written here")
        return asyncio.sleep(0)

    monkeypatch.setattr(image, "create", create)
    with pytest.raises(FileExistsError):
        asyncio.run(pools.create(root(), None))
    pools.place(POOL, ROOT).write_bytes(b"new")
    with pytest.raises(FileExistsError):
        pools.settle(POOL, ROOT, "qcow2")
    assert disk.read_bytes() == b"a guest has written here"


def test_a_volume_stands_thin_on_its_template(pools: DirPools, tmp_path: Path) -> None:
    with pools.place(POOL, DEBIAN).open("wb") as part:
        part.write(b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (MIB - 512))
    pools.settle(POOL, DEBIAN, "raw")
    template = seen(pools, DEBIAN)
    assert template is not None
    assert (template.format, template.size) == ("raw", MIB)
    asyncio.run(pools.create(root(2 * MIB, "debian"), template))
    found = seen(pools)
    assert found is not None
    assert (found.backing, found.size) == (f"{DEBIAN}.raw", 2 * MIB)


def test_what_a_killed_run_left_is_cleaned_and_nothing_else(pools: DirPools, tmp_path: Path) -> None:
    directory = tmp_path / "pools" / POOL
    for name in (f"{ROOT}.qcow2.part", f"{DEBIAN}.part", f"{ROOT}.qcow2", "notes.part", f"{ROOT}.txt"):
        (directory / name).write_bytes(b"")
    pools.clean([POOL])
    assert {path.name for path in directory.iterdir()} == {MARK, f"{ROOT}.qcow2", "notes.part", f"{ROOT}.txt"}


def test_a_file_that_is_no_image_is_told(pools: DirPools, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / f"{ROOT}.qcow2").write_text("hello")
    assert "is not a qcow2 image" in seen(pools).broken  # type: ignore[union-attr]


def a_ring(path: Path) -> None:
    path.symlink_to(path.name)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_wild_header(path: Path) -> None:
    path.write_bytes(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 1 << 63, 10, 16, MIB) + bytes(512))


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
@pytest.mark.parametrize("put", [Path.mkdir, a_ring, a_pipe, a_wild_header])
def test_a_file_that_makes_no_sense_hides_no_other(
    pools: DirPools, tmp_path: Path, put: Callable[[Path], None], format_: str
) -> None:
    asyncio.run(pools.create(root(), None))
    put(tmp_path / "pools" / POOL / f"{DEBIAN}.{format_}")
    assert seen(pools).broken == ""  # type: ignore[union-attr]
    assert (format_ == "raw" and put is a_wild_header) == (seen(pools, DEBIAN).broken == "")  # type: ignore[union-attr]


def test_a_pool_that_can_not_be_read_is_away_and_hides_no_other(
    pools: DirPools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = id_of("other")
    pools.make_pool(other)
    asyncio.run(pools.create(root(), None))
    real = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == other:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(Path, "glob", lambda path, _: iterdir(path))
    found, images, made = pools.look()
    assert (set(found), set(images), made) == ({POOL}, {ROOT}, frozenset({POOL, other, ROOT}))
    pools.clean([other])


def test_a_mount_point_is_emptied_and_left(pools: DirPools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "pools" / POOL
    (directory / "lost+found").mkdir()
    (directory / "lost+found" / "#1").write_bytes(b"somebody's")

    def rmdir(_: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with pytest.raises(StepFailed, match=r"lost\+found"):
        pools.remove_pool(POOL)
    (directory / "lost+found" / "#1").unlink()
    pools.remove_pool(POOL)
    pools.remove_pool(POOL)
    assert pools.look() == ({}, {}, frozenset())


def test_half_a_template_of_a_killed_run_keeps_no_pool(pools: DirPools, tmp_path: Path) -> None:
    """It was away when the agent started, and is only cleaned now."""
    pools.place(POOL, DEBIAN).write_bytes(b"half")
    pools.remove_pool(POOL)
    assert list((tmp_path / "pools").iterdir()) == []


def test_a_pool_with_something_in_it_stays(pools: DirPools, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / "notes").write_text("mine")
    with pytest.raises(StepFailed, match="notes"):
        pools.remove_pool(POOL)
    (tmp_path / "pools" / POOL / "notes").unlink()
    pools.remove_pool(POOL)
    assert pools.look() == ({}, {}, frozenset())


def test_nobody_else_may_read_a_disk(pools: DirPools, tmp_path: Path) -> None:
    asyncio.run(pools.create(root(), None))
    path = tmp_path / "pools" / POOL / f"{ROOT}.qcow2"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o711"
    assert os.listdir(tmp_path / "pools") == [POOL]  # noqa: PTH208


def test_the_header_is_read_as_qemu_img_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    asyncio.run(image.create(path, 3 * MIB))
    assert image.read_header(path).size == asyncio.run(image.info(path))["virtual-size"] == 3 * MIB
