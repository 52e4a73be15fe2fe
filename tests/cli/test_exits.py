"""However kowactl ends, the terminal is as it was, and what no longer has a reader ends quietly."""

import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]

from kowa import contract
from kowa.v2.instance_pb2 import ConsoleInstanceResponse, TypeConsoleInstanceResponse
from tests.cli.conftest import Kowactl, line, process
from tests.cli.terminal import in_terminal
from tests.fake_kahuna import KEY, Fake
from tests.sdk.fixtures import Kahuna
from tests.waiting import until

SOME_ID = "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"


@pytest.fixture
def kahuna(fake: Fake) -> Kahuna:
    """One that fails on purpose."""
    return Kahuna(fake.endpoint, KEY)


@dataclass
class Machine:
    """A machine whose console prints one line and is quiet from then on."""

    endpoint: str = ""
    typed: bytes = b""
    refused: int = 0
    upload_s: float = 0.0  # that keys are on their way
    size: tuple[int, int] = (0, 0)
    open: threading.Event = field(default_factory=threading.Event)  # while somebody looks
    reads: threading.Event = field(default_factory=threading.Event)  # while it reads its keys
    over: threading.Event = field(default_factory=threading.Event)  # Kahuna goes


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Its Kahuna answers nothing but its console."""
    made = Machine()
    made.reads.set()

    def console(_: object, context: grpc.ServicerContext) -> Iterator[ConsoleInstanceResponse]:
        made.open.set()
        context.add_callback(made.open.clear)  # at its end, also where gRPC asks for no more of what follows
        yield ConsoleInstanceResponse(session="s")
        yield ConsoleInstanceResponse(data=b"login: \r\n")
        until(lambda: made.over.is_set() or not context.is_active(), timeout=60)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Kahuna stops")

    def type_console(request: Any, context: grpc.ServicerContext) -> TypeConsoleInstanceResponse:
        assert (request.id, request.session) == (SOME_ID, "s")
        assert request.offset == len(made.typed)
        made.over.wait(made.upload_s)
        if not context.is_active():  # they have not come: their sender has given up
            return TypeConsoleInstanceResponse()
        if not made.reads.wait(0.1):
            made.refused += 1
            info = any_pb2.Any()
            info.Pack(error_details_pb2.ErrorInfo(reason="BUSY", domain="kowabunga"))
            status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="busy", details=[info])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        made.typed = made.typed[: request.offset] + request.data
        return TypeConsoleInstanceResponse(offset=len(made.typed))

    def resize_console(request: Any, _: object) -> Empty:
        made.size = request.rows, request.columns
        return Empty()

    server = grpc.server(ThreadPoolExecutor(4))
    for verb, act in {"console": console, "type-console": type_console, "resize-console": resize_console}.items():
        method = contract.load().kinds["Instance"].service.methods[verb]
        serve: Any = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        read = contract.load().stub(method.request.name).FromString
        handler = serve(act, read, lambda answer: answer.SerializeToString())
        service, name = method.path[1:].split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    made.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", made.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    yield made
    made.over.set()
    server.stop(None).wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(machine: Machine, number: signal.Signals) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        before = terminal.state
        terminal.read_until(b"login: ")
        assert terminal.raw
        terminal.process.send_signal(number)
        assert terminal.wait() == (130 if number == signal.SIGINT else -number)
        assert terminal.state == before
    until(lambda: not machine.open.is_set(), what="the console is closed")


def test_typed_keys_go_to_the_machine_and_none_is_left_for_the_shell(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        before = terminal.state
        terminal.read_until(b"login: ")
        os.write(terminal.master, b"root\r\x03\x1c\x1a")
        until(lambda: machine.typed == b"root\r\x03\x1c\x1a", what="the keys")
        os.write(terminal.master, b"\x1drm -rf /\r")
        assert terminal.wait() == 0
        assert terminal.state == before
        os.set_blocking(terminal.slave, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal.slave, 100)


def test_keys_wait_for_a_machine_that_reads_none_and_ctrl_leaves_it_all_the_same(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        machine.reads.clear()
        os.write(terminal.master, b"a" * 1000)
        until(lambda: machine.refused, what="keys that are not taken")
        machine.reads.set()
        until(lambda: machine.typed == b"a" * 1000, what="the keys")
        machine.reads.clear()
        os.write(terminal.master, b"b")
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0
    assert machine.typed == b"a" * 1000


def test_keys_arrive_over_a_slow_connection_and_ctrl_does_not_wait_for_it(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        machine.upload_s = 2
        os.write(terminal.master, b"slow")
        until(lambda: machine.typed == b"slow", what="the keys")
        machine.upload_s = 30
        os.write(terminal.master, b"never")
        os.write(terminal.master, b"\x1d")
        left = time.monotonic()
        assert terminal.wait() == 0
        assert time.monotonic() - left < 10
    assert machine.typed == b"slow"


def test_the_machine_hears_how_large_the_terminal_is(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        for size in ((24, 80), (50, 132)):
            termios.tcsetwinsize(terminal.slave, size)
            until(lambda size=size: machine.size == size, what="the size")  # type: ignore[misc]
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0


def write_all(terminal: int, keys: bytes) -> None:
    """As a terminal's window does with a paste."""
    while keys:
        keys = keys[os.write(terminal, keys[:1024]) :]


def test_a_paste_arrives_whole_and_in_order(machine: Machine) -> None:
    paste = b"".join(b"%07d\r" % number for number in range(1 << 13))
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        typing = threading.Thread(target=write_all, args=(terminal.master, paste))
        typing.start()
        until(lambda: machine.typed == paste, what="the paste")
        typing.join()
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0


def test_a_lost_connection_is_said(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        machine.over.set()
        assert terminal.wait() == 8
        assert not terminal.raw
        assert b"kowactl: Kahuna stops; check KOWABUNGA_ENDPOINT" in terminal.printed


def test_a_console_that_is_stopped_gives_the_terminal_back_and_takes_it_again(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        terminal.process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(terminal.process.pid, os.WUNTRACED)[1])
        assert not terminal.raw
        terminal.process.send_signal(signal.SIGCONT)
        until(lambda: terminal.raw, what="raw again")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == -signal.SIGTERM
        assert not terminal.raw


def test_a_terminal_that_goes_away_ends_the_console(machine: Machine) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        os.dup2(terminal.slave, terminal.master)
        assert terminal.process.wait(20) == -signal.SIGHUP
    until(lambda: not machine.open.is_set(), what="the console is closed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_while_waiting_shows_the_cursor_and_names_the_operation(
    kowactl: Kowactl, number: signal.Signals
) -> None:
    with in_terminal("region", "create", "--name", "slow") as terminal:
        terminal.read_until(b"The fake wants it so")
        terminal.process.send_signal(number)
        assert terminal.wait() == (130 if number == signal.SIGINT else -number)
        hidden, shown = terminal.printed.rfind(b"\x1b[?25l"), terminal.printed.rfind(b"\x1b[?25h")
        assert -1 < hidden < shown
        assert b"the change is committed and goes on" in terminal.printed


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(machine: Machine) -> None:
    with in_terminal(script=f"trap '' HUP; exec $KOWACTL console {SOME_ID}") as terminal:
        terminal.read_until(b"login: ")
        terminal.process.send_signal(signal.SIGHUP)
        os.write(terminal.master, b"x")
        until(lambda: machine.typed == b"x", what="it goes on")
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0


@pytest.mark.usefixtures("machine")
def test_a_quiet_console_ends_when_nobody_reads() -> None:
    script = f"{sys.executable} -m kowactl.main --insecure console {SOME_ID} </dev/null | head -1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"login: \r\n", b"")


@pytest.mark.usefixtures("machine")
def test_a_console_in_a_terminal_whose_output_nobody_reads_any_more() -> None:
    with in_terminal(script=f"$KOWACTL console {SOME_ID} | head -1") as terminal:
        before = terminal.state
        assert terminal.wait() == 0
        assert terminal.state == before


@pytest.mark.slow
def test_a_quiet_watch_ends_when_nobody_reads(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    for form in ("table", "json", "yaml", "name"):
        with process("region", "watch", "-o", form) as watching:
            assert line(watching.stdout)
            assert watching.stdout
            watching.stdout.close()
            assert (watching.wait(20), watching.stderr and watching.stderr.read()) == (0, "")


@pytest.mark.slow
@pytest.mark.usefixtures("kowactl")
def test_an_alarm_set_before_the_start_ends_a_watch() -> None:
    script = "import os, signal, sys; signal.alarm(3); os.execv(sys.executable, sys.argv[1:])"
    watch = [sys.executable, "-m", "kowactl.main", "--insecure", "region", "watch"]
    done = subprocess.run([sys.executable, "-c", script, *watch], capture_output=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGALRM


@pytest.mark.slow
def test_a_list_that_is_long_in_coming_ends_when_nobody_reads(kowactl: Kowactl, fake: Fake) -> None:
    read, write = os.pipe()
    fake.unavailable = 1000
    with process("region", "list", out=write) as listing:
        os.close(write)
        until(lambda: fake.calls, what="a first try")
        os.close(read)
        assert (listing.wait(20), listing.stderr and listing.stderr.read()) == (0, "")


@pytest.mark.slow
def test_completion_that_nobody_reads() -> None:
    script = f"_KOWACTL_COMPLETE=bash_source {sys.executable} -c 'from kowactl.main import main; main()' | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


UNREAD = [
    "--help",
    "region create --help",
    "region list",
    "region list -o json",
    "region get eu",
    "--version",
    "zone watch -o name",
]


@pytest.mark.slow
@pytest.mark.parametrize("words", UNREAD)
def test_what_nobody_reads_is_no_failure(kowactl: Kowactl, words: str) -> None:
    kowactl("region", "create", "--name", "eu")
    read, write = os.pipe()
    os.close(read)
    with process(*words.split(), out=write) as unread:
        os.close(write)
        _, stderr = unread.communicate()
    assert (unread.returncode, stderr) == (0, "")


CLOSED_STDERR = [
    # what is typed                                  exit code
    ("region create --name eu", 0),
    ("region create --name slow --timeout 0.1s", 10),
    ("region create --name doomed", 9),
    ("region create --name too-big", 6),
    ("region get nowhere", 3),
    ("region fly", 2),
    ("region delete nowhere", 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), CLOSED_STDERR, ids=[row[0] for row in CLOSED_STDERR])
@pytest.mark.usefixtures("kowactl")
def test_a_change_is_waited_for_though_nobody_reads_of_it(words: str, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    for closed in (write, None):
        redirected = "2>&-" if closed is None else ""
        command = f"exec {sys.executable} -m kowactl.main --insecure {words} {redirected}"
        done = subprocess.run(["sh", "-c", command], stderr=closed, stdout=subprocess.PIPE, check=False, timeout=30)
        assert done.returncode == code


@pytest.mark.slow
def test_no_output_at_all(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    for words in ("region list", "region get eu -o json", "region create --name us", "--help"):
        command = f"exec {sys.executable} -m kowactl.main --insecure {words} >&-"
        done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.usefixtures("machine")
def test_a_console_without_stdin_shows_what_is_printed() -> None:
    script = f"{sys.executable} -m kowactl.main --insecure console {SOME_ID} <&- | head -1"
    unread = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30, check=False)
    assert (unread.returncode, unread.stdout, unread.stderr) == (0, b"login: \r\n", b"")
