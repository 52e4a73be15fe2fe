"""What someone at a shell may rely on when things go wrong."""

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
from tests.cli.conftest import Kowactl, line, process
from tests.fake_kahuna import FATES, KEY, Fake
from tests.sdk.fixtures import Kahuna
from tests.waiting import until


@pytest.fixture
def kahuna(fake: Fake) -> Kahuna:
    """One that fails on purpose."""
    return Kahuna(fake.endpoint, KEY)


def test_waiting_says_what_for_and_how_to_go_on(kowactl: Kowactl, fake: Fake) -> None:
    begun = kowactl("region", "create", "--name", "slow", "--no-wait", "-o", "name")
    operation = begun.err.split()[-1]
    assert begun.err == f"started; wait for it with: kowactl operation wait {operation}\n"
    late = kowactl("operation", "wait", operation, "--timeout", "0.05s")
    assert late.code == 10
    assert late.err.splitlines()[-1].startswith("kowactl: CreateRegion slow is still under way: ")
    assert f"kowactl operation wait {operation}" in late.err
    fake.finish()
    assert kowactl("operation", "wait", operation).code == 0


def test_an_interrupt_loses_no_operation(kowactl: Kowactl, fake: Fake) -> None:
    with process("region", "create", "--name", "slow") as following:
        assert line(following.stderr) == "CreateRegion slow: The fake wants it so.\n"
        following.send_signal(signal.SIGINT)
        _, stderr = following.communicate()
    assert following.returncode == 130
    operation = _goes_on(stderr)
    fake.finish()
    assert kowactl("operation", "wait", operation).code == 0


@pytest.mark.slow
def test_an_outage_is_waited_out(kowactl: Kowactl, fake: Fake) -> None:
    with process("region", "create", "--name", "slow", "-o", "name") as following:
        assert line(following.stderr) == "CreateRegion slow: The fake wants it so.\n"
        fake.unavailable = 1000
        assert line(following.stderr) == "Kahuna is unreachable; waiting for it\n"
        fake.unavailable = 0
        fake.finish()
        made, stderr = following.communicate()
    assert (following.returncode, made, stderr) == (0, "slow\n", "")


def test_an_outage_to_the_end_loses_no_operation(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> NoReturn:
        raise errors.Unavailable("Kahuna is away", code="UNAVAILABLE")

    with monkeypatch.context() as outage:
        outage.setattr("kowa.client.Operations.wait", away)
        outage.setattr("kowactl.session.monotonic", count().__next__)
        cut = kowactl("region", "create", "--name", "eu", "--timeout", "8s")
    assert (cut.code, cut.out) == (8, "")
    operation = _goes_on(cut.err)
    assert kowactl("operation", "get", operation, "-o", "name").out == f"{operation}\n"


def _goes_on(stderr: str) -> str:
    """The operation that goes on."""
    (words,) = (each for each in stderr.splitlines() if "is committed" in each)
    assert words.startswith("the change is committed and goes on; wait for it with: kowactl operation wait ")
    return words.split()[-1]


def test_what_was_committed_and_then_failed(kowactl: Kowactl) -> None:
    failed = kowactl("region", "create", "--name", "doomed")
    assert (failed.code, failed.out) == (9, "")
    assert failed.err.startswith("kowactl: CreateRegion doomed failed: The fake wants it so")


def test_what_is_full(kowactl: Kowactl) -> None:
    full = kowactl("region", "create", "--name", "too-big")
    assert (full.code, full.err) == (6, "kowactl: No host has room; free some memory\n")


def test_a_change_outlives_a_restart_of_kahuna(kowactl: Kowactl, fake: Fake) -> None:
    fake.unavailable = 2
    assert kowactl("region", "create", "--name", "eu").code == 0


# Clears the screen, names the window, turns the text round, ends a line for some, and is no tag.
EVIL = "a\x1b[2J\x1b]0;b\x07\x9b1m\u202etxt.exe\u2028c\x85d\x7f\U000e0041[/e]é"
SHOWN = r"a\x1b[2J\x1b]0;b\x07\x9b1m\u202etxt.exe\u2028c\x85d\x7f\U000e0041[/e]é"


@pytest.mark.parametrize("form", FORMATS)
def test_what_others_write_reaches_no_terminal_as_it_is(
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


def test_what_is_shown_of_it(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", EVIL, "--description", f"{EVIL}\n{EVIL}")
    assert kowactl("region", "list", "-o", "name").out == f"{SHOWN}\n"
    _, row, end = kowactl("region", "list").out.split("\n")
    assert (row.split(), end) == ([SHOWN, "-", rf"{SHOWN}\n{SHOWN}"], "")
    *_, last, under = kowactl("region", "get", "it").out.splitlines()
    assert (last.split(maxsplit=1), under) == (["description", SHOWN], " " * 25 + SHOWN)
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert read(kowactl("region", "get", "it", "-o", form).out)["name"] == EVIL


def test_progress_and_errors_with_it(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FATES, EVIL, PHASE_WAITING)
    monkeypatch.setattr("kowactl.session.POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr("kowactl.session.monotonic", count().__next__)
    late = kowactl("region", "create", "--name", EVIL, "--timeout", "8s")
    progress, error, end = late.err.split("\n")
    assert (late.code, progress, end) == (10, f"CreateRegion {SHOWN}: The fake wants it so.", "")
    assert error.startswith(r"kowactl: CreateRegion a\x1b[2J\x1b]0;b\x07")
    assert error.isprintable()


def test_a_change_that_another_overtook(kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FATES, "slow", PHASE_SUPERSEDED)
    overtaken = kowactl("region", "create", "--name", "slow")
    assert overtaken.code == 9
    assert overtaken.err.startswith("kowactl: CreateRegion slow superseded: ")
    assert "the newer change goes on: kowactl operation list --filter 'target = " in overtaken.err


def test_a_console_of_a_host_that_is_away_is_no_kahuna_out_of_reach(
    kowactl: Kowactl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object) -> NoReturn:
        raise errors.Unavailable("the machine's host is not connected", code="UNAVAILABLE", reason="HOST_OFFLINE")

    monkeypatch.setattr(Client, "unary_stream", offline)
    refused = kowactl("console", "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10")
    assert (refused.code, refused.err) == (5, "kowactl: the machine's host is not connected (HOST_OFFLINE)\n")


def test_typing_ahead_has_a_bound_and_ends_with_the_console() -> None:
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
        until(lambda: sent and len(sent[-1]) == console.MAX_KEYS_BYTES, what="all keys that may wait")
        again = len(sent)
        until(lambda: len(sent) > again, what="another try")
        assert sent[-1] == b"x" * console.MAX_KEYS_BYTES
        assert not raised
        keys.ended.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_names_in_a_long_table_are_read_with_one_list(kowactl: Kowactl, fake: Fake) -> None:
    with Client(fake.endpoint, key=KEY, insecure=True) as client:
        for number in range(80):
            region = client.regions.begin_create(Region(name=f"r{number}")).resource
            client.zones.begin_create(Zone(name="a", region=region.meta.id))
    fake.calls.clear()
    rows = kowactl("zone", "list").out.splitlines()[1:]
    assert [row.split()[1] for row in rows] == [f"r{number}" for number in range(80)]
    asked = Counter(name for name, *_ in fake.calls)
    assert (asked["ListZones"], asked["ListRegions"]) == (1, 1)
    assert asked["GetRegion"] < 8


def test_a_cell_that_is_empty_stays_a_column(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    assert kowactl("region", "list").out.splitlines()[1].split() == ["eu", "-", "-"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody has signed, and its key."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    both = ("-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", str(file))
    subprocess.run([*request.split(), *both], check=True, capture_output=True)
    return file


@pytest.fixture
def tls_endpoint(certificate: Path) -> Iterator[str]:
    """Where something listens with TLS."""
    both = certificate.read_bytes()
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(both, both)]))
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


def test_a_handshake_that_fails_names_what_helps(
    bare: Kowactl, fake: Fake, tls_endpoint: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    monkeypatch.setattr("kowa.calls.OPTIONS", [("grpc.enable_retries", 0)])
    nameless, trusted = tls_endpoint.replace("localhost", "127.0.0.1"), ("--ca", str(certificate))
    helps = {
        ("--endpoint", tls_endpoint): "set KOWABUNGA_CA (or --ca) to the authority that signed",
        ("--endpoint", nameless, *trusted): "name Kahuna as its certificate does",
        ("--endpoint", fake.endpoint): "give --insecure",
        ("--insecure", "--endpoint", tls_endpoint): "leave --insecure out",
        ("--endpoint", tls_endpoint, "--ca", "/etc/passwd"): "KOWABUNGA_CA (or --ca) holds no certificate",
    }
    for options, remedy in helps.items():
        failed = bare(*options, "region", "list")
        assert (failed.code, failed.out) == (8, "")
        assert remedy in failed.err.splitlines()[-1]
    assert bare("--endpoint", tls_endpoint, *trusted, "region", "list").code != 8
