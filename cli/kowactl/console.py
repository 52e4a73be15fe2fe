"""`kowactl console`: a machine's serial console on this terminal."""

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator

import click

from kowa import contract
from kowactl.endings import interruptible
from kowactl.session import Session
from kowactl.terminal import STDIN, STDOUT, raw_terminal

LEAVE_KEY = b"\x1d"  # Ctrl-]
MAX_QUEUED_READS = 16  # reads of the terminal that may wait to be sent
POLL_INTERVAL_S = 0.1  # how often it is looked whether the console has ended while nobody types
LEAVE_LIMIT_S = 1.0  # after Ctrl-], for Kahuna to take the last keys


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
    keys: queue.Queue[bytes | None] = queue.Queue(MAX_QUEUED_READS)
    ended = threading.Event()

    def requests() -> Iterator[object]:
        yield request(id=id_)
        while (data := keys.get()) is not None:
            yield request(data=data)

    with interruptible() as interrupt, open(STDOUT, "wb", closefd=False) as output, raw_terminal():
        reading = (STDIN, keys, ended, lambda: interrupt(_Left()))
        typing = threading.Thread(target=_read_keys, args=reading, daemon=True)
        typing.start()
        try:
            for response in session.client.converse(method, requests()):  # type: ignore[arg-type]
                output.write(response.data)
                output.flush()
        except _Left:
            pass
        finally:
            ended.set()
            with contextlib.suppress(queue.Full):  # then nobody waits for more
                keys.put_nowait(None)
            typing.join()


class _Left(Exception):
    """Ctrl-], and Kahuna does not answer."""


def _read_keys(
    source: int, keys: "queue.Queue[bytes | None]", ended: threading.Event, leave: Callable[[], None]
) -> None:
    """Until Ctrl-], which ends the console. The end of a file that is read instead only ends the typing."""
    while not ended.is_set():
        if not select.select([source], [], [], POLL_INTERVAL_S)[0]:
            continue
        try:
            data = os.read(source, 4096)
        except OSError:  # closed, or a terminal that is gone
            return
        if not data:
            return
        before, left, _ = data.partition(LEAVE_KEY)
        if before:
            _send(keys, before, ended)
        if left:
            with contextlib.suppress(queue.Full):
                keys.put(None, timeout=LEAVE_LIMIT_S)  # once what was typed before is sent, Kahuna ends the console
            if not ended.wait(LEAVE_LIMIT_S):
                leave()
            return


def _send(keys: "queue.Queue[bytes | None]", data: bytes | None, ended: threading.Event) -> None:
    """Waits for room, or for the end of the console."""
    while not ended.is_set():
        with contextlib.suppress(queue.Full):
            keys.put(data, timeout=POLL_INTERVAL_S)
            break
