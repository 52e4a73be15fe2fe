"""kowactl when things go wrong: outages, interrupts, failed operations, hostile text, TLS."""

import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
import yaml

from kowa import errors
from kowa.client import Client
from kowa.v2.meta_pb2 import CHANGE_PUT
from kowa.v2.operation_pb2 import PHASE_SUPERSEDED, PHASE_WAITING
from kowa.v2.region_pb2 import Region, WatchRegionsResponse
from kowa.v2.zone_pb2 import Zone
from kowactl import console
from kowactl.kinds import FORMATS
from tests.cli.conftest import Kowactl, next_line, process
from tests.fake_kahuna import KEY, PHASES_BY_NAME, FakeKahuna
from tests.sdk.fixtures import Kahuna
from tests.waiting import until


@pytest.fixture
def kahuna(fake_kahuna: FakeKahuna) -> Kahuna:
    """A fake Kahuna, which fails on purpose."""
    return Kahuna(fake_kahuna.endpoint, KEY)


def test_a_timed_out_wait_names_the_operation_and_the_command_to_go_on(
    kowactl: Kowactl, fake_kahuna: FakeKahuna
) -> None:
    started = kowactl("region", "create", "--name", "slow", "--no-wait", "-o", "name")
    operation = started.err.split()[-1]
    assert started.err == f"started; wait for it with: kowactl operation wait {operation}\n"
    late = kowactl("operation", "wait", operation, "--timeout", "0.05s")
    assert late.code == 10
    assert late.err.splitlines()[-1].startswith("kowactl: CreateRegion slow is still under way: ")
    assert f"kowactl operation wait {operation}" in late.err
    fake_kahuna.finish()
    assert kowactl("operation", "wait", operation).code == 0


def test_an_interrupt_names_the_operation_that_goes_on(kowactl: Kowactl, fake_kahuna: FakeKahuna) -> None:
    with process("region", "create", "--name", "slow") as following:
        assert next_line(following.stderr) == "CreateRegion slow: The fake wants it so.\n"
        following.send_signal(signal.SIGINT)
        _, stderr = following.communicate()
    assert following.returncode == 130
    operation = _operation_that_goes_on(stderr)
    fake_kahuna.finish()
    assert kowactl("operation", "wait", operation).code == 0


@pytest.mark.slow
def test_a_command_waits_until_an_outage_ends(kowactl: Kowactl, fake_kahuna: FakeKahuna) -> None:
    with process("region", "create", "--name", "slow", "-o", "name") as following:
        assert next_line(following.stderr) == "CreateRegion slow: The fake wants it so.\n"
        fake_kahuna.unavailable = 1000
        assert next_line(following.stderr) == "Kahuna is unreachable; waiting for it\n"
        fake_kahuna.unavailable = 0
        fake_kahuna.finish()
        output, stderr = following.communicate()
    assert (following.returncode, output, stderr) == (0, "slow\n", "")


def test_an_outage_beyond_the_timeout_names_the_operation_that_goes_on(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> NoReturn:
        raise errors.Unavailable("Kahuna is unreachable", code="UNAVAILABLE")

    with monkeypatch.context() as outage:
        outage.setattr("kowa.client.Operations.wait", unavailable)
        outage.setattr("kowactl.session.monotonic", count().__next__)
        cut = kowactl("region", "create", "--name", "eu", "--timeout", "8s")
    assert (cut.code, cut.out) == (8, "")
    operation = _operation_that_goes_on(cut.err)
    assert kowactl("operation", "get", operation, "-o", "name").out == f"{operation}\n"


def _operation_that_goes_on(stderr: str) -> str:
    """The operation named by the message that the change goes on."""
    (message,) = (line for line in stderr.splitlines() if "is committed" in line)
    assert message.startswith("the change is committed and goes on; wait for it with: kowactl operation wait ")
    return message.split()[-1]


def test_a_failed_operation_has_its_own_exit_code(kowactl: Kowactl) -> None:
    failed = kowactl("region", "create", "--name", "doomed")
    assert (failed.code, failed.out) == (9, "")
    assert failed.err.startswith("kowactl: CreateRegion doomed failed: The fake wants it so")


def test_exhausted_capacity_has_its_own_exit_code(kowactl: Kowactl) -> None:
    full = kowactl("region", "create", "--name", "too-big")
    assert (full.code, full.err) == (6, "kowactl: No host has room; free some memory\n")


def test_a_change_is_repeated_during_a_restart_of_kahuna(kowactl: Kowactl, fake_kahuna: FakeKahuna) -> None:
    fake_kahuna.unavailable = 2
    assert kowactl("region", "create", "--name", "eu").code == 0


# Clears the screen, sets the window title, reverses the text, breaks the line in some programs; not a rich tag.
EVIL = "a\x1b[2J\x1b]0;b\x07\x9b1m\u202etxt.exe\u2028c\x85d\x7f\U000e0041[/e]é"
ESCAPED = r"a\x1b[2J\x1b]0;b\x07\x9b1m\u202etxt.exe\u2028c\x85d\x7f\U000e0041[/e]é"


@pytest.mark.parametrize("form", FORMATS)
def test_control_characters_in_values_are_escaped_in_every_format(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    region = Region(name=EVIL, description=f"{EVIL}\n{EVIL}")
    kowactl("region", "create", "--name", region.name, "--description", region.description)
    event = WatchRegionsResponse(change=CHANGE_PUT, region=region)

    async def watched(*_: object) -> AsyncGenerator[WatchRegionsResponse, None]:
        yield event

    monkeypatch.setattr(Client, "unary_stream", watched)
    for verb in (["list"], ["get", "it"], ["watch"]):
        shown = kowactl("region", *verb, "-o", form)
        assert shown.code == 0
        assert "txt.exe" in shown.out
        assert all(line.isprintable() for line in shown.out.split("\n"))


def test_escaped_values_keep_their_place_in_tables_and_their_content_in_json(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", EVIL, "--description", f"{EVIL}\n{EVIL}")
    assert kowactl("region", "list", "-o", "name").out == f"{ESCAPED}\n"
    _, row, end = kowactl("region", "list").out.split("\n")
    assert (row.split(), end) == ([ESCAPED, "-", rf"{ESCAPED}\n{ESCAPED}"], "")
    *_, last, under = kowactl("region", "get", "it").out.splitlines()
    assert (last.split(maxsplit=1), under) == (["description", ESCAPED], " " * 25 + ESCAPED)
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert read(kowactl("region", "get", "it", "-o", form).out)["name"] == EVIL


def test_control_characters_are_escaped_in_progress_and_errors(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PHASES_BY_NAME, EVIL, PHASE_WAITING)
    monkeypatch.setattr("kowactl.session.POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr("kowactl.session.monotonic", count().__next__)
    late = kowactl("region", "create", "--name", EVIL, "--timeout", "8s")
    progress, error, end = late.err.split("\n")
    assert (late.code, progress, end) == (10, f"CreateRegion {ESCAPED}: The fake wants it so.", "")
    assert error.startswith(r"kowactl: CreateRegion a\x1b[2J\x1b]0;b\x07")
    assert error.isprintable()


def test_a_superseded_change_names_the_newer_one(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PHASES_BY_NAME, "slow", PHASE_SUPERSEDED)
    superseded = kowactl("region", "create", "--name", "slow")
    assert superseded.code == 9
    assert superseded.err.startswith("kowactl: CreateRegion slow superseded: ")
    assert "the newer change goes on: kowactl operation list --filter 'target = " in superseded.err


def test_a_console_of_an_offline_host_is_a_conflict_and_not_an_unreachable_kahuna(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> NoReturn:
        raise errors.Unavailable("the machine's host is not connected", code="UNAVAILABLE", reason="HOST_OFFLINE")

    monkeypatch.setattr(Client, "unary_stream", offline)
    refused = kowactl("console", "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10")
    assert (refused.code, refused.err) == (5, "kowactl: the machine's host is not connected (HOST_OFFLINE)\n")


def test_unsent_keys_are_bounded_and_dropped_at_the_end_of_the_console() -> None:
    (read, write), sent, raised = os.pipe(), list[bytes](), list[BaseException]()

    def call(_: str, *, offset: int, data: bytes) -> NoReturn:
        assert offset == 0
        sent.append(data)
        raise errors.Unavailable("the machine reads no keys", code="UNAVAILABLE", reason="BUSY")

    with os.fdopen(read), os.fdopen(write, "wb", buffering=0) as typed:
        keys = console.Keys(read, call, raised.append)
        threads = [threading.Thread(target=each, daemon=True) for each in (keys.read, keys.send)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            typed.write(b"x" * (console.MAX_KEYS_BYTES // 2))
        until(lambda: sent and len(sent[-1]) == console.MAX_KEYS_BYTES, what="the most keys that may wait")
        attempts = len(sent)
        until(lambda: len(sent) > attempts, what="another attempt")
        assert sent[-1] == b"x" * console.MAX_KEYS_BYTES
        assert not raised
        keys.ended.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_names_of_many_references_are_read_with_one_list(kowactl: Kowactl, fake_kahuna: FakeKahuna) -> None:
    with Client(fake_kahuna.endpoint, key=KEY, insecure=True) as client:
        for number in range(80):
            region = client.regions.begin_create(Region(name=f"r{number}")).resource
            client.zones.begin_create(Zone(name="a", region=region.meta.id))
    fake_kahuna.calls.clear()
    rows = kowactl("zone", "list").out.splitlines()[1:]
    assert [row.split()[1] for row in rows] == [f"r{number}" for number in range(80)]
    calls = Counter(name for name, *_ in fake_kahuna.calls)
    assert (calls["ListZones"], calls["ListRegions"]) == (1, 1)
    assert calls["GetRegion"] < 8


def test_an_empty_cell_is_a_dash(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    assert kowactl("region", "list").out.splitlines()[1].split() == ["eu", "-", "-"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate for localhost and its key."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    both = ("-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(file))
    subprocess.run([*request.split(), *both], check=True, capture_output=True)
    return file


@pytest.fixture
def tls_endpoint(certificate: Path) -> Iterator[str]:
    """The endpoint of a TLS server with that certificate."""
    both = certificate.read_bytes()
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(both, both)]))
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


def test_a_failed_handshake_names_the_remedy(
    run_command: Kowactl, fake_kahuna: FakeKahuna, tls_endpoint: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    monkeypatch.setattr("kowa.calls.OPTIONS", [("grpc.enable_retries", 0)])
    by_address, trusted = tls_endpoint.replace("localhost", "127.0.0.1"), ("--ca", str(certificate))
    remedies = {
        ("--endpoint", tls_endpoint): "set KOWABUNGA_CA (or --ca) to the authority that signed",
        ("--endpoint", by_address, *trusted): "name Kahuna as its certificate does",
        ("--endpoint", fake_kahuna.endpoint): "give --insecure",
        ("--insecure", "--endpoint", tls_endpoint): "leave --insecure out",
        ("--endpoint", tls_endpoint, "--ca", "/etc/passwd"): "KOWABUNGA_CA (or --ca) holds no certificate",
    }
    for options, remedy in remedies.items():
        failed = run_command(*options, "region", "list")
        assert (failed.code, failed.out) == (8, "")
        assert remedy in failed.err.splitlines()[-1]
    assert run_command("--endpoint", tls_endpoint, *trusted, "region", "list").code != 8
