"""What becomes a template: only what was promised, only from where it may come."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent_kaktus.desired import Template
from agent_kaktus.parse import parse
from agent_kaktus.storage import image, template
from agent_kaktus.storage.address import Allowed, choose
from agent_kaktus.storage.dir import DirPools
from agent_kaktus.storage.source import Sources
from agent_kaktus.storage.template import Imports

from .slices import MIB, id_of, small_house

POOL, DEBIAN = id_of("pool"), id_of("debian")
LOCAL = Allowed(networks=(ip_network("127.0.0.0/8"),))
RAW = b"\x00" * 510 + b"\x55\xaa" + bytes(3 * MIB)


class Server(ThreadingHTTPServer):
    """Serves what a test says, and counts."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.break_off = 0  # so many times

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["host"]))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("location", self.path.removeprefix("/to/").replace("|", "/"))
            self.send_header("content-length", "0")
            self.end_headers()
        elif self.path == "/debian":
            self.send_response(200)
            self.send_header("content-length", str(len(RAW)))
            self.end_headers()
            if self.server.break_off:
                self.server.break_off -= 1
                self.wfile.write(RAW[:MIB])
                self.close_connection = True
            else:
                self.wfile.write(RAW)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "PAUSES", (0.0, 0.0, 0.0))


class Outcome:
    """An import that has ended."""

    def __init__(self, tmp_path: Path, source: str, content: bytes, allowed: Allowed = LOCAL) -> None:
        self.folder = tmp_path / "import"
        self.folder.mkdir(exist_ok=True)
        self.pool = tmp_path / "pools" / POOL
        self.reason = "not ended"
        self.percents: list[int] = []
        slice_ = small_house()
        slice_.template("debian", source, hashlib.sha256(content).hexdigest())
        asyncio.run(self._run(tmp_path, parse(slice_.objects).templates[DEBIAN], allowed))

    async def _run(self, tmp_path: Path, wanted: Template, allowed: Allowed) -> None:
        pools = DirPools(tmp_path / "pools", tmp_path / "made")
        pools.look()
        pools.make_pool(POOL)
        done = asyncio.Event()

        def ended(_: Template, reason: str) -> None:
            self.reason = reason
            done.set()

        imports = Imports(
            pools, Sources(self.folder, allowed), ended, lambda told: self.percents.append(imports.percent[told.id])
        )
        imports.begin(wanted)
        imports.begin(wanted)
        async with asyncio.timeout(20):
            await done.wait()
        assert imports.percent == {}
        self.files = {path.name for path in self.pool.iterdir()} - {".kowa-pool"}


def test_from_a_web_server(tmp_path: Path, server: Server) -> None:
    outcome = Outcome(tmp_path, server.url("/debian"), RAW)
    assert outcome.reason == ""
    assert outcome.files == {f"{DEBIAN}.raw"}
    assert (outcome.pool / f"{DEBIAN}.raw").read_bytes() == RAW
    assert outcome.percents == sorted(outcome.percents)
    assert outcome.percents[-1] == 99


def test_from_the_import_folder(tmp_path: Path) -> None:
    (tmp_path / "import").mkdir()
    asyncio.run(image.create(tmp_path / "import" / "d.qcow2", MIB))
    outcome = Outcome(tmp_path, "d.qcow2", (tmp_path / "import" / "d.qcow2").read_bytes())
    assert outcome.reason == ""
    assert outcome.files == {f"{DEBIAN}.qcow2"}


def test_a_broken_download_is_begun_again(tmp_path: Path, server: Server) -> None:
    server.break_off = 3
    assert Outcome(tmp_path, server.url("/debian"), RAW).reason == ""
    assert len(server.asked) == 4


def test_but_not_for_ever(tmp_path: Path, server: Server) -> None:
    server.break_off = 9
    outcome = Outcome(tmp_path, server.url("/debian"), RAW)
    assert "tried 4 times" in outcome.reason
    assert outcome.files == set()


def test_redirects_are_followed_and_checked_again(tmp_path: Path, server: Server) -> None:
    assert Outcome(tmp_path, server.url("/to/|debian"), RAW).reason == ""
    for where, reason in (
        ("http:||169.254.169.254|latest", "169.254.169.254, which is no public address"),
        ("file:|||etc|passwd", "leads to file"),
    ):
        outcome = Outcome(tmp_path, server.url("/to/" + where), RAW)
        assert reason in outcome.reason


def test_a_ring_of_redirects_ends(tmp_path: Path, server: Server) -> None:
    ring = server.url("/to/|debian").replace("/to/|debian", "/to/")
    outcome = Outcome(tmp_path, ring + "|to|" * 8, RAW)
    assert outcome.reason
    assert len(server.asked) <= 6


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("debian", "has no readable file debian"),
        ("../secret", "neither an http or https URL nor the name of a file"),
        (".hidden", "neither an http or https URL nor the name of a file"),
        ("ftp://example.org/debian", "neither an http or https URL nor the name of a file"),
        ("link", "leads out of the import folder"),
        ("folder", "is no file"),
        ("http://me:secret@127.0.0.1/debian", "has a user or password in it"),
        ("http://127.0.0.1:1/debian", "tried 4 times"),
    ],
)
def test_other_sources_are_refused(tmp_path: Path, source: str, reason: str) -> None:
    folder = tmp_path / "import"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(RAW)
    (folder / "link").symlink_to("../secret")
    (folder / "folder").mkdir()
    outcome = Outcome(tmp_path, source, RAW)
    assert reason in outcome.reason
    assert "secret" not in outcome.reason or "../secret" in source
    assert outcome.files == set()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "is text, no disk image"),
        (b"", "is data, no disk image"),
        (RAW[:-7], "is data, no disk image"),
        (b"QFI\xfb" + bytes(200), "damaged qcow2"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "d").write_bytes(content)
    outcome = Outcome(tmp_path, "d", content)
    assert reason in outcome.reason
    assert outcome.files == set()


def test_what_has_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "d").write_bytes(RAW + bytes(512))
    outcome = Outcome(tmp_path, "d", RAW)
    assert "holds something else" in outcome.reason
    assert outcome.files == set()


def test_an_image_that_refers_to_another_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "import"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(RAW)
    asyncio.run(image.overlay(folder / "d", 8 * MIB, str(tmp_path / "secret"), "raw"))
    assert "refers to another file" in Outcome(tmp_path, "d", (folder / "d").read_bytes()).reason
    external = f"data_file={tmp_path}/secret2,data_file_raw=on"
    asyncio.run(image.qemu_img("create", "-q", "-f", "qcow2", "-o", external, str(folder / "e"), "1M"))
    assert "refers to another file" in Outcome(tmp_path, "e", (folder / "e").read_bytes()).reason


def test_an_address_is_public_or_allowed() -> None:
    assert choose("example.org", ["93.184.216.34"], Allowed()) == "93.184.216.34"
    assert choose("mirror", ["10.0.0.5"], Allowed(names=frozenset({"mirror"}))) == "10.0.0.5"
    assert choose("mirror", ["10.0.0.5"], Allowed(networks=(ip_network("10.0.0.0/8"),))) == "10.0.0.5"
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
    ):
        with pytest.raises(ValueError, match="no public address"):
            choose("example.org", [inside], Allowed())
    with pytest.raises(ValueError, match="no public address"):
        choose("example.org", ["93.184.216.34", "127.0.0.1"], Allowed())
    with pytest.raises(ValueError, match="has no address"):
        choose("example.org", [], Allowed())
