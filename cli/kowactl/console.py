"""`kowactl console`: a machine's serial console on this terminal."""

import contextlib
import os
import queue
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator

import click

from kowa import contract
from kowactl.session import Session

LEAVE = b"\x1d"  # Ctrl-]
AHEAD = 16  # reads of the terminal that may wait to be sent
LOOK = 0.1  # seconds between two looks whether the console has ended while nobody types


@click.command(
    short_help="A machine's serial console",
    epilog="\b\nExample:\n  kowactl console my-instance\n  kowactl console my-instance </dev/null | head -20",
)
@click.argument("instance")
@click.pass_obj
def console(session: Session, instance: str) -> None:
    """A machine's serial console: the end of what it has printed, then all it prints. Ctrl-] leaves."""
    kind = contract.load().kinds["Instance"]
    method = kind.service.methods["console"]
    request = contract.load().stub(method.request.name)
    id_ = session.references.id_of(kind, instance)
    keys: queue.Queue[bytes | None] = queue.Queue(AHEAD)
    ended = threading.Event()

    def requests() -> Iterator[object]:
        yield request(id=id_)
        while (data := keys.get()) is not None:
            yield request(data=data)

    typing = threading.Thread(target=_read_keys, args=(keys, ended), daemon=True)
    with _raw_terminal():
        typing.start()
        try:
            for response in session.client.converse(method, requests()):  # type: ignore[arg-type]
                sys.stdout.buffer.write(response.data)
                sys.stdout.buffer.flush()
        finally:
            ended.set()
            with contextlib.suppress(queue.Full):  # then nobody waits for more
                keys.put_nowait(None)
            typing.join()


def _read_keys(keys: "queue.Queue[bytes | None]", ended: threading.Event) -> None:
    """Until Ctrl-], which ends the console. The end of a file that is read instead only ends the typing."""
    while not ended.is_set():
        if not select.select([sys.stdin], [], [], LOOK)[0]:
            continue
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:
            return
        before, leave, _ = data.partition(LEAVE)
        if before:
            _send(keys, before, ended)
        if leave:
            _send(keys, None, ended)
            return


def _send(keys: "queue.Queue[bytes | None]", data: bytes | None, ended: threading.Event) -> None:
    """Waits for room, or for the end of the console."""
    while not ended.is_set():
        with contextlib.suppress(queue.Full):
            keys.put(data, timeout=LOOK)
            break


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Each key goes to the machine, also Ctrl-C."""
    if not sys.stdin.isatty():
        yield
        return
    click.echo("Ctrl-] leaves.", err=True)
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        click.echo("", err=True)
