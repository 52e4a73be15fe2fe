"""The directory driver: disk files are complete or absent, never shrunk and never created twice."""

import asyncio
import errno
import json
import os
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agent_kaktus import process
from agent_kaktus.actual import Image, PoolSpace
from agent_kaktus.storage import dir as dir_driver
from agent_kaktus.storage import image
from agent_kaktus.storage.dir import MARKER, DirDriver, StorageState
from kowa.runtime.errors import StepFailed
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


def observe(pools: DirDriver) -> StorageState:
    return asyncio.run(pools.observe())


def observed(pools: DirDriver, id_: str = ROOT) -> Image | None:
    return observe(pools).images.get(id_)


def test_a_pool_reports_its_space(pools: DirDriver) -> None:
    state = observe(pools)
    assert state.pools[POOL].capacity >= state.pools[POOL].available > 0
    assert state.images == {}
    assert state.created == {POOL}


def test_an_empty_mount_point_is_not_a_pool(pools: DirDriver, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / MARKER).unlink()
    state = observe(pools)
    assert state.pools == {}
    assert state.created == {POOL}


def test_a_pool_that_does_not_answer_hides_no_other(pools: DirDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file system whose server is away: nothing that is asked of it returns."""
    other, answers = id_of("other"), threading.Event()
    asyncio.run(pools.create_pool(other))
    space, asked = pools.space, 0

    def space_if_there(pool: str) -> PoolSpace:
        nonlocal asked
        if pool == POOL:
            asked += 1
            answers.wait()
        return space(pool)

    async def scenario() -> None:
        assert (await pools.observe()).pools.keys() == {other}
        assert (await pools.observe()).pools.keys() == {other}
        assert asked == 1, "it is asked again though it has not answered"
        answers.set()
        async with asyncio.timeout(5):
            while True:
                if (await pools.observe()).pools.keys() == {POOL, other}:
                    break
                await asyncio.sleep(0.01)

    monkeypatch.setattr(pools, "space", space_if_there)
    monkeypatch.setattr(dir_driver, "OBSERVE_TIMEOUT_S", 0.2)
    try:
        asyncio.run(scenario())
    finally:
        answers.set()


def test_a_record_that_a_kill_cut_short_goes_with_its_volume(pools: DirDriver, tmp_path: Path) -> None:
    create_root(pools)
    (tmp_path / "created" / f"{ROOT}.part").touch()
    asyncio.run(pools.remove(POOL, ROOT))
    assert [path.name for path in (tmp_path / "created").iterdir()] == [POOL]


def test_a_volume_is_created_grown_and_removed(pools: DirDriver, tmp_path: Path) -> None:
    create_root(pools)
    create_root(pools)
    found = observed(pools)
    assert found is not None
    assert (found.size, found.format, found.backing, found.broken) == (64 * MIB, "qcow2", "", "")
    assert found.allocation < MIB
    asyncio.run(pools.grow(POOL, ROOT, 96 * MIB))
    assert observed(pools).size == 96 * MIB  # type: ignore[union-attr]
    asyncio.run(pools.remove(POOL, ROOT))
    asyncio.run(pools.remove(POOL, ROOT))
    state = observe(pools)
    assert not state.images
    assert state.created == {POOL}
    assert [path.name for path in (tmp_path / "pools" / POOL).iterdir()] == [MARKER]


def test_an_existing_disk_is_never_replaced(pools: DirDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that appears while another is being created."""
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


def test_a_volume_is_a_thin_layer_on_its_template(pools: DirDriver, tmp_path: Path) -> None:
    with pools.staging_file(POOL, DEBIAN).open("wb") as part:
        part.write(b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (MIB - 512))
    pools.add_template(POOL, DEBIAN, "raw")
    template = observed(pools, DEBIAN)
    assert template is not None
    assert (template.format, template.size) == ("raw", MIB)
    create_root(pools, 2 * MIB, template)
    found = observed(pools)
    assert found is not None
    assert (found.backing, found.size) == (f"{DEBIAN}.raw", 2 * MIB)


def test_only_partial_files_of_a_killed_agent_are_cleaned(pools: DirDriver, tmp_path: Path) -> None:
    directory = tmp_path / "pools" / POOL
    for name in (f"{ROOT}.qcow2.part", f"{DEBIAN}.part", f"{ROOT}.qcow2", "notes.part", f"{ROOT}.txt"):
        (directory / name).write_bytes(b"")
    pools.clean([POOL])
    assert {path.name for path in directory.iterdir()} == {MARKER, f"{ROOT}.qcow2", "notes.part", f"{ROOT}.txt"}


def test_a_file_that_is_not_an_image_is_reported(pools: DirDriver, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / f"{ROOT}.qcow2").write_text("hello")
    assert "is not a qcow2 image" in observed(pools).broken  # type: ignore[union-attr]


def put_link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def put_named_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_wild_header(path: Path) -> None:
    path.write_bytes(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 1 << 63, 10, 16, MIB) + bytes(512))


def put_short_header(path: Path) -> None:
    path.write_bytes(struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 0, 0, 16, MIB) + bytes(32))


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
@pytest.mark.parametrize("put", [Path.mkdir, put_link_loop, put_named_pipe, put_wild_header, put_short_header])
def test_an_unreadable_file_does_not_hide_others(
    pools: DirDriver, tmp_path: Path, put: Callable[[Path], None], format_: str
) -> None:
    create_root(pools)
    put(tmp_path / "pools" / POOL / f"{DEBIAN}.{format_}")
    assert observed(pools).broken == ""  # type: ignore[union-attr]
    assert (format_ == "raw" and put in (put_wild_header, put_short_header)) == (observed(pools, DEBIAN).broken == "")  # type: ignore[union-attr]


def test_an_unreadable_pool_does_not_hide_others(
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
    state = observe(pools)
    assert (set(state.pools), set(state.images), state.created) == ({POOL}, {ROOT}, frozenset({POOL, other, ROOT}))
    pools.clean([other])


def test_removing_a_pool_empties_its_mount_point_and_leaves_it(
    pools: DirDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert observe(pools) == StorageState({}, {}, frozenset())


def test_a_partial_template_does_not_keep_its_pool(pools: DirDriver, tmp_path: Path) -> None:
    """The pool was not mounted when the agent started, so it is cleaned only now."""
    pools.staging_file(POOL, DEBIAN).write_bytes(b"half")
    asyncio.run(pools.remove_pool(POOL))
    assert list((tmp_path / "pools").iterdir()) == []


def test_a_pool_with_other_files_is_not_removed(pools: DirDriver, tmp_path: Path) -> None:
    (tmp_path / "pools" / POOL / "notes").write_text("mine")
    with pytest.raises(StepFailed, match="notes"):
        asyncio.run(pools.remove_pool(POOL))
    (tmp_path / "pools" / POOL / "notes").unlink()
    asyncio.run(pools.remove_pool(POOL))
    assert observe(pools) == StorageState({}, {}, frozenset())


def test_a_disk_is_readable_only_by_its_owner(pools: DirDriver, tmp_path: Path) -> None:
    create_root(pools)
    path = tmp_path / "pools" / POOL / f"{ROOT}.qcow2"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert oct(path.parent.stat().st_mode & 0o777) == "0o711"
    assert os.listdir(tmp_path / "pools") == [POOL]  # noqa: PTH208


def test_the_header_is_read_as_qemu_img_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    asyncio.run(image.create(path, 3 * MIB))
    info = asyncio.run(process.run("qemu-img", "info", "--output=json", str(path)))
    assert image.read_header(path).size == json.loads(info)["virtual-size"] == 3 * MIB
