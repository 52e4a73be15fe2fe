"""Imports of templates: the checksum must match and the source be allowed."""

import asyncio
import errno
import hashlib
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent_kaktus import process
from agent_kaktus.kinds import KINDS
from agent_kaktus.storage import image
from agent_kaktus.storage import imports as importing
from agent_kaktus.storage.dir import DirDriver
from agent_kaktus.storage.imports import Imports
from agent_kaktus.storage.source import Sources
from agent_kaktus.storage.template import Template
from kowa.runtime.errors import PermanentFailure, StepFailed
from tests.kaktus.settings_of import settings_of
from tests.waiting import until

from .slices import MIB, id_of, slice_with_network

POOL, DEBIAN = id_of("pool"), id_of("debian")
LOCAL = ("127.0.0.0/8",)
RAW = b"\x00" * 510 + b"\x55\xaa" + bytes(3 * MIB)


class Server(ThreadingHTTPServer):
    """Serves images and redirects, and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str]] = []  # path, Host header
        self.broken_downloads_left = 0
        self.release = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["host"]))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("location", self.path.removeprefix("/to/").replace("|", "/"))
            self.send_header("content-length", "0")
            self.end_headers()
        elif self.path.startswith("/silent"):
            self.server.release.wait(20)
            self.close_connection = True
        elif self.path == "/debian":
            self.send_response(200)
            self.send_header("content-length", str(len(RAW)))
            self.end_headers()
            if self.server.broken_downloads_left:
                self.server.broken_downloads_left -= 1
                self.wfile.write(RAW[:MIB])
                self.close_connection = True
            else:
                self.wfile.write(RAW)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def qcow2_with_backing_name_at(offset: int) -> bytes:
    """A qcow2 header that has the name of its backing file at an offset."""
    return struct.pack(">4sIQIIQ", b"QFI\xfb", 3, offset, 10, 16, MIB) + bytes(512)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "FIRST_RETRY_S", 0.0)


class ImportRun:
    """Runs an import of template debian to its end."""

    def __init__(self, tmp_path: Path, source: str, content: bytes, hosts: tuple[str, ...] = LOCAL) -> None:
        self.folder = tmp_path / "import"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pool = tmp_path / "pools" / POOL
        self.reason = "not ended"
        self.percents: list[int] = []
        slice_ = slice_with_network()
        slice_.template("debian", source, hashlib.sha256(content).hexdigest())
        asyncio.run(self._run(tmp_path, KINDS.parse(slice_.objects).of(Template)[DEBIAN], hosts))

    async def _run(self, tmp_path: Path, wanted: Template, hosts: tuple[str, ...]) -> None:
        pools = DirDriver(settings_of(tmp_path / "pools", tmp_path / "instances"), tmp_path / "created")
        await pools.observe()
        await pools.create_pool(POOL)
        done = asyncio.Event()

        def ended(_: Template, reason: str) -> None:
            self.reason = reason
            done.set()

        self.imports = imports = Imports(
            pools,
            Sources(self.folder, hosts),
            ended,
            lambda template: self.percents.append(imports.percent[template.id]),
        )
        await imports.start(wanted)
        await imports.start(wanted)
        async with asyncio.timeout(20):
            await done.wait()
        assert imports.percent == {}
        await self.after_import(wanted, done)
        self.files = {path.name for path in self.pool.iterdir()} - {".kowa-pool"}

    async def after_import(self, wanted: Template, done: asyncio.Event) -> None:
        """Hook: runs after the first import."""


def test_a_template_is_imported_from_a_web_server(tmp_path: Path, server: Server) -> None:
    run = ImportRun(tmp_path, server.url("/debian"), RAW)
    assert run.reason == ""
    assert run.files == {f"{DEBIAN}.raw"}
    assert (run.pool / f"{DEBIAN}.raw").read_bytes() == RAW
    assert run.percents == sorted(run.percents)
    assert run.percents[-1] == 99


def test_scheme_and_host_are_normalized(tmp_path: Path, server: Server) -> None:
    """The Host header is in the usual form, and the address is the allowed one of that host."""
    source = server.url("/debian#newest").replace("http://127.0.0.1", "HTTP://LocalHost.")
    run = ImportRun(tmp_path, source, RAW, ("localhost",))
    assert run.reason == ""
    assert server.requests == [("/debian", f"localhost:{server.server_port}")]


def test_a_template_is_imported_from_the_import_folder(tmp_path: Path) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "debian-12.raw").write_bytes(RAW)
    run = ImportRun(tmp_path, "debian-12.raw", RAW)
    assert run.reason == ""
    assert run.files == {f"{DEBIAN}.raw"}


def test_a_broken_download_is_retried(tmp_path: Path, server: Server) -> None:
    server.broken_downloads_left = 3
    assert ImportRun(tmp_path, server.url("/debian"), RAW).reason == ""
    assert len(server.requests) == 4


def test_a_download_is_retried_three_times(tmp_path: Path, server: Server) -> None:
    server.broken_downloads_left = 9
    run = ImportRun(tmp_path, server.url("/debian"), RAW)
    assert "tried 4 times" in run.reason
    assert run.files == set()


def test_redirects_are_followed_and_checked_again(tmp_path: Path, server: Server) -> None:
    assert ImportRun(tmp_path / "fits", server.url("/to/|debian"), RAW).reason == ""
    for target, reason in (
        ("http:||169.254.169.254|latest", "169.254.169.254, which is no public address"),
        (
            "file:|||etc|passwd",
            "redirects to 'file:///etc/passwd', which no source may be: it is neither an http or https URL",
        ),
        ("http:||xn--|x", "redirects to what is not a URL"),
    ):
        run = ImportRun(tmp_path, server.url("/to/" + target), RAW)
        assert reason in run.reason


def test_a_redirect_loop_ends(tmp_path: Path, server: Server) -> None:
    start = server.url("/to/|debian").replace("/to/|debian", "/to/")
    run = ImportRun(tmp_path, start + "|to|" * 8, RAW)
    assert run.reason
    assert len(server.requests) <= 6


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("debian", "has no readable file debian"),
        ("../secret", "the source is neither an http or https URL nor the name of a file"),
        ("ftp://example.org/debian", "the source must be an http or https URL"),
        ("link", "leads out of the import folder"),
        ("folder", "is not a file"),
        ("http://me:secret@127.0.0.1/debian", "may hold no user or password"),
        ("http://127.0.0.1:1/debian", "tried 4 times"),
    ],
)
def test_a_source_that_is_not_allowed_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    folder = tmp_path / "import"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(RAW)
    (folder / "link").symlink_to("../secret")
    (folder / "folder").mkdir()
    run = ImportRun(tmp_path, source, RAW)
    assert reason in run.reason
    assert "secret" not in run.reason or "../secret" in source
    assert run.files == set()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "is text, no disk image"),
        (b"", "is data, no disk image"),
        (RAW[:-7], f"has {len(RAW) - 7} bytes, no multiple of 512: it was cut off"),
        (b"QFI\xfb" + bytes(200), "damaged qcow2"),
        (qcow2_with_backing_name_at(1 << 63), "damaged qcow2"),
        (qcow2_with_backing_name_at((1 << 63) - 1), "damaged qcow2"),
    ],
)
def test_content_that_is_not_an_image_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "d").write_bytes(content)
    run = ImportRun(tmp_path, "d", content)
    assert reason in run.reason
    assert run.files == set()


def test_content_with_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "d").write_bytes(RAW + bytes(512))
    run = ImportRun(tmp_path, "d", RAW)
    assert "holds something else" in run.reason
    assert run.files == set()


def test_an_image_that_refers_to_another_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "import"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(RAW)
    create = ("create", "-q", "-f", "qcow2")
    asyncio.run(process.run("qemu-img", *create, "-b", str(tmp_path / "secret"), "-F", "raw", str(folder / "d"), "8M"))
    assert "refers to another file" in ImportRun(tmp_path, "d", (folder / "d").read_bytes()).reason
    external = f"data_file={tmp_path}/secret2,data_file_raw=on"
    asyncio.run(process.run("qemu-img", *create, "-o", external, str(folder / "e"), "1M"))
    assert "refers to another file" in ImportRun(tmp_path, "e", (folder / "e").read_bytes()).reason


def test_qemu_img_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "import").mkdir()
    asyncio.run(image.create(tmp_path / "import" / "d", MIB))
    content = (tmp_path / "import" / "d").read_bytes()
    monkeypatch.setattr(image, "_MAX_MEMORY_BYTES", MIB)
    assert "the image can't be read" in ImportRun(tmp_path, "d", content).reason


def test_an_unexpected_error_ends_the_import(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise ValueError("nobody thought of that")

    monkeypatch.setattr(image, "verify", fail)
    reason = ImportRun(tmp_path, server.url("/debian"), RAW).reason
    assert reason == "the agent failed on it, its log says where: ValueError: nobody thought of that"


def test_an_import_ends_although_cleaning_up_fails(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def verify(_: Path) -> None:
        monkeypatch.setattr(Path, "unlink", fail)
        fail()

    monkeypatch.setattr(image, "verify", verify)
    assert "Read-only file system" in ImportRun(tmp_path, server.url("/debian"), RAW).reason


def test_a_slow_source_times_out(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK_TIMEOUT_S", 0.05)
    assert "takes longer than 0 s for 256 KiB; tried 4 times" in ImportRun(tmp_path, server.url("/silent"), RAW).reason
    monkeypatch.setattr(importing, "IMPORT_TIMEOUT_S", 0.01)
    assert "it took longer than 0 hours" in ImportRun(tmp_path, server.url("/silent"), RAW).reason


def test_a_source_that_is_too_large_is_refused(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_SOURCE_BYTES", MIB)
    run = ImportRun(tmp_path, server.url("/debian"), RAW)
    assert "the source holds more than" in run.reason
    assert run.files == set()


class ImportIntoFullPool(ImportRun):
    """An import into a full pool, which later has space."""

    monkeypatch: pytest.MonkeyPatch

    async def after_import(self, wanted: Template, done: asyncio.Event) -> None:
        assert self.reason == ""
        assert {path.name for path in self.pool.iterdir()} == {".kowa-pool"}
        with pytest.raises(StepFailed, match=r"no room: .* of them kept for instances"):
            await self.imports.start(wanted)
        for wait in self.imports._waits.values():
            wait.until = 0.0
        with pytest.raises(OSError, match="no room"):
            await self.imports.start(wanted)
        self.monkeypatch.undo()
        done.clear()
        await self.imports.start(wanted)
        await done.wait()


def test_an_import_into_a_full_pool_is_tried_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Space that thin volumes may still need stays reserved."""
    monkeypatch.setattr(importing, "RESERVED_SHARE", 1)
    monkeypatch.setattr(importing, "MAX_RESERVED_BYTES", 1 << 60)
    ImportIntoFullPool.monkeypatch = monkeypatch
    run = ImportIntoFullPool(tmp_path, server.url("/debian"), RAW)
    assert run.reason == ""
    assert run.files == {f"{DEBIAN}.raw"}


def test_parallel_imports_are_limited(tmp_path: Path, server: Server) -> None:
    slice_ = slice_with_network()
    for name in "abcd":
        slice_.template(name, server.url(f"/silent/{name}"), "0" * 64)

    async def run() -> None:
        pools = DirDriver(settings_of(tmp_path / "pools", tmp_path / "instances"), tmp_path / "created")
        await pools.observe()
        await pools.create_pool(POOL)
        imports = Imports(pools, Sources(None, LOCAL), lambda *_: None, lambda _: None)
        for wanted in KINDS.parse(slice_.objects).of(Template).values():
            await imports.start(wanted)
        await asyncio.to_thread(until, lambda: len(server.requests) == importing.MAX_PARALLEL)
        await asyncio.sleep(0.1)
        assert len(server.requests) == importing.MAX_PARALLEL
        server.release.set()
        await imports.close()
        assert imports.percent == {}

    asyncio.run(run())


def test_an_address_is_public_or_allowed() -> None:
    assert Sources().choose_address("example.org", ["93.184.216.34"]) == "93.184.216.34"
    assert Sources().choose_address("example.org", ["2606:2800:220:1::1"]) == "2606:2800:220:1::1"
    assert Sources().choose_address("example.org", ["64:ff9b::5db8:d822"]) == "64:ff9b::5db8:d822"
    assert Sources(hosts=["fec0::/10"]).choose_address("mirror", ["fec0::5"]) == "fec0::5"
    assert Sources(hosts=["mirror"]).choose_address("mirror", ["10.0.0.5"]) == "10.0.0.5"
    assert Sources(hosts=["10.0.0.0/8"]).choose_address("mirror", ["10.0.0.5"]) == "10.0.0.5"
    for inside in (
        "10.0.0.5",
        "127.0.0.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fec0::1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "5f00::1",
        "64:ff9b:1::a00:1",
    ):
        with pytest.raises(PermanentFailure, match="no public address"):
            Sources().choose_address("example.org", [inside])
    with pytest.raises(PermanentFailure, match="no public address"):
        Sources().choose_address("example.org", ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(PermanentFailure, match="has no address"):
        Sources().choose_address("example.org", [])
