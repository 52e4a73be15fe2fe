"""Ends of kowactl: the terminal is restored, and a command whose output is closed ends without an error."""

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
from tests.cli.conftest import Kowactl, next_line, process
from tests.cli.terminal import in_terminal
from tests.fake_kahuna import KEY, FakeKahuna
from tests.sdk.fixtures import Kahuna
from tests.waiting import until

SOME_ID = "2f5c9b8e-3f2d-4b3a-9a53-0d1f7a1e6a10"


@pytest.fixture
def kahuna(fake_kahuna: FakeKahuna) -> Kahuna:
    """A fake Kahuna, which fails on purpose."""
    return Kahuna(fake_kahuna.endpoint, KEY)


@dataclass
class FakeInstance:
    """An instance whose console prints one line and then nothing more."""

    endpoint: str = ""
    typed: bytes = b""
    busy_responses: int = 0
    upload_s: float = 0.0  # how long keys take to arrive
    size: tuple[int, int] = (0, 0)
    is_viewed: threading.Event = field(default_factory=threading.Event)  # set while a viewer is connected
    reads_keys: threading.Event = field(default_factory=threading.Event)  # set while it reads keys
    kahuna_stops: threading.Event = field(default_factory=threading.Event)  # set when Kahuna stops


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeInstance]:
    """An instance of a Kahuna that serves only this instance's console."""
    fake_instance = FakeInstance()
    fake_instance.reads_keys.set()

    def console(_: object, context: grpc.ServicerContext) -> Iterator[ConsoleInstanceResponse]:
        fake_instance.is_viewed.set()
        context.add_callback(fake_instance.is_viewed.clear)  # also when the client stops reading
        yield ConsoleInstanceResponse(session="s")
        yield ConsoleInstanceResponse(data=b"login: \r\n")
        until(lambda: fake_instance.kahuna_stops.is_set() or not context.is_active(), timeout=60)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Kahuna stops")

    def type_console(request: Any, context: grpc.ServicerContext) -> TypeConsoleInstanceResponse:
        assert (request.id, request.session) == (SOME_ID, "s")
        assert request.offset == len(fake_instance.typed)
        fake_instance.kahuna_stops.wait(fake_instance.upload_s)
        if not context.is_active():  # the sender has given up before they arrived
            return TypeConsoleInstanceResponse()
        if not fake_instance.reads_keys.wait(0.1):
            fake_instance.busy_responses += 1
            info = any_pb2.Any()
            info.Pack(error_details_pb2.ErrorInfo(reason="BUSY", domain="kowabunga"))
            status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="busy", details=[info])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        fake_instance.typed = fake_instance.typed[: request.offset] + request.data
        return TypeConsoleInstanceResponse(offset=len(fake_instance.typed))

    def resize_console(request: Any, _: object) -> Empty:
        fake_instance.size = request.rows, request.columns
        return Empty()

    server = grpc.server(ThreadPoolExecutor(4))
    for verb, act in {"console": console, "type-console": type_console, "resize-console": resize_console}.items():
        method = contract.load().kinds["Instance"].service.methods[verb]
        serve: Any = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        read = contract.load().stub(method.request.name).FromString
        handler = serve(act, read, lambda response: response.SerializeToString())
        service, name = method.path[1:].split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    fake_instance.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("KOWABUNGA_ENDPOINT", fake_instance.endpoint)
    monkeypatch.setenv("KOWABUNGA_API_KEY", KEY)
    yield fake_instance
    fake_instance.kahuna_stops.set()
    server.stop(None).wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_restores_the_terminal(instance: FakeInstance, number: signal.Signals) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        before = terminal.state
        terminal.read_until(b"login: ")
        assert terminal.raw
        terminal.process.send_signal(number)
        assert terminal.wait() == (130 if number == signal.SIGINT else -number)
        assert terminal.state == before
    until(lambda: not instance.is_viewed.is_set(), what="the console is closed")


def test_typed_keys_go_to_the_instance_and_none_is_left_for_the_shell(instance: FakeInstance) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        before = terminal.state
        terminal.read_until(b"login: ")
        os.write(terminal.master, b"root\r\x03\x1c\x1a")
        until(lambda: instance.typed == b"root\r\x03\x1c\x1a", what="the keys")
        os.write(terminal.master, b"\x1drm -rf /\r")
        assert terminal.wait() == 0
        assert terminal.state == before
        os.set_blocking(terminal.slave, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal.slave, 100)


def test_keys_wait_for_an_instance_that_reads_none_and_the_escape_key_still_works(instance: FakeInstance) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        instance.reads_keys.clear()
        os.write(terminal.master, b"a" * 1000)
        until(lambda: instance.busy_responses, what="keys that are refused")
        instance.reads_keys.set()
        until(lambda: instance.typed == b"a" * 1000, what="the keys")
        instance.reads_keys.clear()
        os.write(terminal.master, b"b")
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0
    assert instance.typed == b"a" * 1000


def test_keys_arrive_over_a_slow_connection_and_the_escape_key_does_not_wait_for_them(instance: FakeInstance) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        instance.upload_s = 2
        os.write(terminal.master, b"slow")
        until(lambda: instance.typed == b"slow", what="the keys")
        instance.upload_s = 30
        os.write(terminal.master, b"never")
        os.write(terminal.master, b"\x1d")
        escaped_at = time.monotonic()
        assert terminal.wait() == 0
        assert time.monotonic() - escaped_at < 10
    assert instance.typed == b"slow"


def test_the_instance_gets_the_terminals_size(instance: FakeInstance) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        for size in ((24, 80), (50, 132)):
            termios.tcsetwinsize(terminal.slave, size)
            until(lambda size=size: instance.size == size, what="the size")  # type: ignore[misc]
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0


def write_all(terminal: int, keys: bytes) -> None:
    """Writes keys in chunks, as a terminal emulator does with a paste."""
    while keys:
        keys = keys[os.write(terminal, keys[:1024]) :]


def test_a_paste_arrives_complete_and_in_order(instance: FakeInstance) -> None:
    paste = b"".join(b"%07d\r" % number for number in range(1 << 13))
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        typing = threading.Thread(target=write_all, args=(terminal.master, paste))
        typing.start()
        until(lambda: instance.typed == paste, what="the paste")
        typing.join()
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0


def test_a_lost_connection_is_reported(instance: FakeInstance) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        instance.kahuna_stops.set()
        assert terminal.wait() == 8
        assert not terminal.raw
        assert b"kowactl: Kahuna stops; check KOWABUNGA_ENDPOINT" in terminal.printed


def test_a_suspended_console_restores_the_terminal_and_resumes(instance: FakeInstance) -> None:
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


def test_closing_the_terminal_ends_the_console(instance: FakeInstance) -> None:
    with in_terminal("console", SOME_ID) as terminal:
        terminal.read_until(b"login: ")
        os.dup2(terminal.slave, terminal.master)
        assert terminal.process.wait(20) == -signal.SIGHUP
    until(lambda: not instance.is_viewed.is_set(), what="the console is closed")


def test_closing_the_terminal_ends_the_console_also_under_nohup(instance: FakeInstance) -> None:
    with in_terminal(script=f"trap '' HUP; exec $KOWACTL console {SOME_ID}") as terminal:
        terminal.read_until(b"login: ")
        os.dup2(terminal.slave, terminal.master)
        assert terminal.process.wait(20) == 0
    until(lambda: not instance.is_viewed.is_set(), what="the console is closed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_while_waiting_restores_the_cursor_and_names_the_operation(
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
def test_an_ignored_signal_stays_ignored(instance: FakeInstance) -> None:
    with in_terminal(script=f"trap '' HUP; exec $KOWACTL console {SOME_ID}") as terminal:
        terminal.read_until(b"login: ")
        terminal.process.send_signal(signal.SIGHUP)
        os.write(terminal.master, b"x")
        until(lambda: instance.typed == b"x", what="the key, since the console goes on")
        os.write(terminal.master, b"\x1d")
        assert terminal.wait() == 0


@pytest.mark.usefixtures("instance")
def test_a_silent_console_ends_when_its_output_is_closed() -> None:
    script = f"{sys.executable} -m kowactl.main --insecure console {SOME_ID} </dev/null | head -1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"login: \r\n", b"")


@pytest.mark.usefixtures("instance")
def test_a_console_in_a_terminal_ends_when_its_output_is_closed() -> None:
    with in_terminal(script=f"$KOWACTL console {SOME_ID} | head -1") as terminal:
        before = terminal.state
        assert terminal.wait() == 0
        assert terminal.state == before


@pytest.mark.slow
def test_a_silent_watch_ends_when_its_output_is_closed(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    for form in ("table", "json", "yaml", "name"):
        with process("region", "watch", "-o", form) as watching:
            assert next_line(watching.stdout)
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
def test_a_slow_list_ends_when_its_output_is_closed(kowactl: Kowactl, fake_kahuna: FakeKahuna) -> None:
    read, write = os.pipe()
    fake_kahuna.unavailable = 1000
    with process("region", "list", out=write) as listing:
        os.close(write)
        until(lambda: fake_kahuna.calls, what="the first attempt")
        os.close(read)
        assert (listing.wait(20), listing.stderr and listing.stderr.read()) == (0, "")


@pytest.mark.slow
def test_completion_with_a_closed_output_is_not_a_failure() -> None:
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
@pytest.mark.parametrize("arguments", UNREAD)
def test_a_closed_output_is_not_a_failure(kowactl: Kowactl, arguments: str) -> None:
    kowactl("region", "create", "--name", "eu")
    read, write = os.pipe()
    os.close(read)
    with process(*arguments.split(), out=write) as unread:
        os.close(write)
        _, stderr = unread.communicate()
    assert (unread.returncode, stderr) == (0, "")


CLOSED_STDERR = [
    # arguments, exit code
    ("region create --name eu", 0),
    ("region create --name slow --timeout 0.1s", 10),
    ("region create --name doomed", 9),
    ("region create --name too-big", 6),
    ("region get nowhere", 3),
    ("region fly", 2),
    ("region delete nowhere", 3),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code"), CLOSED_STDERR, ids=[row[0] for row in CLOSED_STDERR])
@pytest.mark.usefixtures("kowactl")
def test_a_command_with_a_closed_stderr_runs_to_its_exit_code(arguments: str, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    for closed in (write, None):
        redirected = "2>&-" if closed is None else ""
        command = f"exec {sys.executable} -m kowactl.main --insecure {arguments} {redirected}"
        done = subprocess.run(["sh", "-c", command], stderr=closed, stdout=subprocess.PIPE, check=False, timeout=30)
        assert done.returncode == code


@pytest.mark.slow
def test_a_command_without_stdout_succeeds(kowactl: Kowactl) -> None:
    kowactl("region", "create", "--name", "eu")
    for arguments in ("region list", "region get eu -o json", "region create --name us", "--help"):
        command = f"exec {sys.executable} -m kowactl.main --insecure {arguments} >&-"
        done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.usefixtures("instance")
def test_a_console_without_stdin_shows_the_output() -> None:
    script = f"{sys.executable} -m kowactl.main --insecure console {SOME_ID} <&- | head -1"
    unread = subprocess.run(["sh", "-c", script], capture_output=True, timeout=30, check=False)
    assert (unread.returncode, unread.stdout, unread.stderr) == (0, b"login: \r\n", b"")
