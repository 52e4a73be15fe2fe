"""`kowactl console`: an instance's serial console on this terminal."""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Any

import click

from kowa import contract, errors
from kowactl.session import Session
from kowactl.terminal import STDIN, STDOUT, interruptible, raw_terminal

LEAVE_KEY = b"\x1d"  # Ctrl-]
MAX_KEYS_BYTES = 64 << 10  # in one message, and of those that the instance has not read yet
POLL_INTERVAL_S = 0.1  # between checks for the console's end and for a new size of the terminal
CALL_TIMEOUT_S = 1.0  # of calls that send keys or a size, and for the console's last error; Ctrl-] waits that long


@click.command(
    short_help="A machine's serial console",
    epilog="\b\nExample:\n  kowactl console my-instance\n  kowactl console my-instance </dev/null | head -20",
)
@click.argument("instance")
@click.pass_obj
def console(session: Session, instance: str) -> None:
    """A machine's serial console: the end of its past output, then its new output. Ctrl-] leaves."""
    kind = contract.load().kinds["Instance"]
    id_, ended = session.references.id_of(kind, instance), threading.Event()
    with interruptible() as interrupt, open(STDOUT, "wb", closefd=False) as output:
        responses = session.client.instances.console(id_)
        target = {"id": id_, "session": next(responses).session}

        def call(verb: str, **fields: object) -> Any:
            method = kind.service.methods[verb]
            request: Any = contract.load().stub(method.request.name)
            return session.client.call(method, request(**target, **fields), limit=CALL_TIMEOUT_S).resource

        sender = threading.Thread(target=_send_keys, args=(STDIN, call, ended, interrupt), daemon=True)
        with raw_terminal():
            sender.start()
            try:
                for response in responses:
                    output.write(response.data)
                    output.flush()
            finally:
                ended.set()
                responses.close()
                sender.join()


def _send_keys(
    source: int, call: Callable[..., Any], ended: threading.Event, interrupt: Callable[[BaseException], None]
) -> None:
    """Sends keys and the terminal's size until Ctrl-], which ends the console; the end of a file does not.

    Keys that the instance does not read yet are collected here and sent in one message; sending them twice is harmless.
    """
    size, offset, keys, leave, is_open = (0, 0), 0, b"", b"", True
    while not ended.is_set() and (is_open or keys):
        if os.isatty(source) and size != (size := os.get_terminal_size(source)):
            with contextlib.suppress(errors.KowaError):
                call("resize-console", columns=size[0], rows=size[1])
        while is_open and len(keys) < MAX_KEYS_BYTES:
            if not select.select([source], [], [], 0 if keys else POLL_INTERVAL_S)[0]:
                break
            read = b""
            with contextlib.suppress(OSError):  # the file is closed, or the terminal is gone
                read = os.read(source, MAX_KEYS_BYTES - len(keys))
            typed, leave, _ = read.partition(LEAVE_KEY)
            keys, is_open = keys + typed, bool(typed and not leave)
        try:
            if keys:
                offset, keys = call("type-console", offset=offset, data=keys).offset, b""
        except errors.Unavailable:  # while the console is open: the instance does not read keys now
            if leave or ended.wait(POLL_INTERVAL_S):
                break
        except errors.KowaError as error:
            if not ended.wait(CALL_TIMEOUT_S):
                interrupt(error)
            return
    if leave and not ended.is_set():
        interrupt(click.exceptions.Exit(0))
